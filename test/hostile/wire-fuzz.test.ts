/**
 * Hostile frames against a server with a database, while two witnesses look on: one of the tenant that the attacker
 * belongs to, one of another. Every message gets its answer or the socket its close code; nobody else notices anything.
 * Invariants 1, 2, 7, 8, 9 and 12.
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import fc from 'fast-check'
import { CloseCode } from '../../src/wire/close-codes.ts'
import { createWorld, EARTH, onlyOrg, point, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'
import { mintToken, mintTokenOfText } from '../support/token.ts'
import { WireClient } from '../support/wire-client.ts'
import { fuzzRun } from './fuzz-run.ts'
import { CANARY, hostileJson, hostileString, object } from './hostile-json.ts'
import { type Frame, garbage, hostileFrame } from './hostile-messages.ts'

setDefaultTimeout(2 * TEST_TIMEOUT_MS)

const carol = { sub: 'carol', org_id: 'a' }
const dave = { sub: 'dave', org_id: 'b' }
const mallory = { sub: 'mallory', org_id: 'b' }

/** One column of each kind that reads its values in a way of its own. */
const table = features({
  columns: ', doc jsonb, tags text[], amount numeric, at timestamptz, raw bytea, ratio float8',
})

const CLOSE_CODES: readonly number[] = Object.values(CloseCode)
/** How a first frame is turned away. */
const REFUSALS: readonly number[] = [CloseCode.unauthorized, CloseCode.badMessage, CloseCode.tooLarge]

/** What gives away a stack, a statement or a database's own message. */
const INSIDES =
  /\.ts:\d+|node_modules|\bat \/|[A-Z]\w*Error\b|ERROR: |DETAIL: |pg_catalog|set_config|jsonb_to_record/

/** A socket of the attacker: a client that believes nothing, since it is not the server's fault what it asked for. */
async function attack(world: World, token: string, frames: readonly Frame[]): Promise<WireClient> {
  const socket = await WireClient.open(`${world.server.url.replace('http', 'ws')}/ws`, { authRequired: true })
  await socket.authenticate(token)
  for (const frame of frames) socket.sendRaw(frame)
  socket.send({ type: 'ping' })
  await answered(socket, frames)
  return socket
}

/** Waits until every message that asks for one has its answer, or the socket is closed. */
async function answered(socket: WireClient, frames: readonly Frame[]): Promise<void> {
  const answers = () =>
    socket.frames.filter(({ type }) => type === 'outcome' || type === 'unavailable').length
  const asked = frames.filter((frame) => typeof frame === 'string' && typeOf(frame) === 'write').length
  const giveUpAt = Date.now() + TEST_TIMEOUT_MS / 2
  const isDone = () =>
    socket.closed !== null || (socket.frames.some(({ type }) => type === 'pong') && answers() >= asked)
  while (!isDone()) {
    if (Date.now() > giveUpAt) throw new Error(`${asked} writes, and no end\n${socket.describe()}`)
    await Bun.sleep(5)
  }
}

/** The type of a frame as `JSON.parse` has it, where a key that is there twice is the last. */
function typeOf(frame: string): unknown {
  try {
    return (JSON.parse(frame) as { type?: unknown } | null)?.type
  } catch {
    return undefined
  }
}

/** What holds for all that a server says, whatever it was told. */
function expectComposure(socket: WireClient): void {
  for (const frame of socket.frames) {
    // What an edit may be told of its columns are their names; rows are the database's own words.
    if (frame.type === 'view' || frame.type === 'subscribed') continue
    const text = JSON.stringify(frame)
    expect(text.length).toBeLessThan(64 * 1024)
    expect(withoutNames(text)).not.toMatch(INSIDES)
    if (frame.type !== 'outcome') expect(text).not.toContain(CANARY)
    if (frame.type === 'error') expect(CLOSE_CODES).toContain(frame.code)
  }
  const { closed } = socket
  if (closed === null) return
  expect(closed.reason).not.toMatch(INSIDES)
  expect(CLOSE_CODES).toContain(closed.code)
}

/** Names of columns that the sender made up come back in quotes. */
function withoutNames(text: string): string {
  return text.replace(/no column (\\"(?:[^"\\]|\\\\.|\\(?!"))*\\")/g, 'no column')
}

async function contentsOf(world: World, org: string): Promise<string> {
  const [row] = await world.admin`
    select md5(coalesce(string_agg(t::text, '|' order by id), '')) as hash from features t where org_id = ${org}`
  return row!.hash as string
}

test('I8, I9: hostile messages behind a valid token get codes, and nobody else notices', async () => {
  await using world = await createWorld({ tables: [table] })
  const own = await Promise.all(Array.from({ length: 8 }, () => world.put({ org: 'b', name: 'own' })))
  const ids = [...own, await world.put({ org: 'a', name: 'foreign' })]
  const witness = await world.watch(carol, { bbox: EARTH, allowed: onlyOrg('a') })
  const neighbour = await world.watch(dave, { bbox: EARTH, allowed: onlyOrg('b') })
  const foreignBatch = crypto.randomUUID()
  const foreign = await witness.client.write(
    [{ op: 'insert', columns: { org_id: 'a', name: 'secret of a', geom: point(8.5, 47.5) } }],
    { batch: foreignBatch },
  )
  const [written] = foreign.edits
  if (written?.status !== 'applied') throw new Error('the batch of the other user was refused')
  const before = await contentsOf(world, 'a')
  const token = await mintToken(mallory)
  const batches = [foreignBatch, crypto.randomUUID(), crypto.randomUUID()]
  let applied = 0
  let runs = 0
  await fc.assert(
    fc.asyncProperty(
      fc.array(hostileFrame({ ids, batches }), { minLength: 1, maxLength: 6 }),
      async (frames) => {
        const socket = await attack(world, token, frames)
        expectComposure(socket)
        // The batch of somebody else, replayed, tells nothing of its outcome.
        expect(JSON.stringify(socket.frames)).not.toContain(written.id)
        // Meanwhile the others see what happens as it does.
        if (++runs % 25 === 0) await world.barrier(witness.client, carol)
        for (const frame of socket.frames) {
          if (frame.type === 'outcome')
            applied += frame.edits.filter(({ status }) => status === 'applied').length
        }
        socket.kill()
      },
    ),
    fuzzRun('messages behind a token', 150),
  )
  // The fuzz must get through the door, or it tests no more than that.
  expect(applied).toBeGreaterThan(0)
  await world.barrier(witness.client, carol)
  await world.untilTrue(witness.client, witness.view, carol, EARTH)
  await world.untilTrue(neighbour.client, neighbour.view, dave, EARTH)
  expect(witness.client.closed).toBeNull()
  expect(neighbour.view.ended).toBeNull()
  expect(await contentsOf(world, 'a')).toBe(before)
  expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
  expect((await fetch(`${world.server.url}/readyz`)).status).toBe(200)
})

test('I1: whatever comes before a token, nothing but an error is sent', async () => {
  await using world = await createWorld({ tables: [table] })
  const witness = await world.watch(carol)
  const good = await mintToken(mallory)
  const [header, payload, signature] = good.split('.') as [string, string, string]
  const brokenToken = fc.oneof(
    hostileString,
    fc.tuple(hostileJson, hostileJson).map(([head, body]) => `${base64(head)}.${base64(body)}.${signature}`),
    hostileJson.map((head) => `${base64(head)}.${payload}.${signature}`),
    fc
      .tuple(fc.nat(good.length - 1), fc.constantFrom('A', '.', '=', '\n', 'é', '\0'))
      .map(([at, character]) => good.slice(0, at) + character + good.slice(at + 1))
      .filter((token) => token !== good),
    fc.constantFrom(
      `${header}.${payload}.`,
      `${header}..${signature}`,
      `.${payload}.${signature}`,
      `${good}.`,
    ),
  )
  const first = fc.oneof(
    brokenToken.map((token): Frame => JSON.stringify({ type: 'auth', token })),
    fc.tuple(hostileString, hostileJson).map(
      ([name, json]): Frame =>
        object([
          [name, json],
          ['type', '"auth"'],
        ]),
    ),
    hostileFrame({ ids: ['1'], batches: [crypto.randomUUID()] }),
    garbage,
  )
  await fc.assert(
    fc.asyncProperty(first, async (frame) => {
      const socket = await WireClient.open(`${world.server.url.replace('http', 'ws')}/ws`, {
        authRequired: true,
      })
      socket.sendRaw(frame)
      // Were it taken, this would be answered.
      socket.send({ type: 'subscribe', sub: 's', bbox: EARTH })
      const { code } = await socket.untilClosed()
      expect(REFUSALS).toContain(code)
      expect(socket.frames.filter(({ type }) => type !== 'error')).toEqual([])
      expectComposure(socket)
    }),
    fuzzRun('before a token', 150),
  )
  await world.barrier(witness.client, carol)
})

function base64(text: string): string {
  return Buffer.from(text).toString('base64url')
}

test('I8, I12: claims that only a strange issuer would sign are carried as they are, or refused', async () => {
  await using world = await createWorld({ tables: [table] })
  await world.put({ org: 'a', name: 'of a' })
  await world.put({ org: 'b', name: 'of b' })
  const witness = await world.watch(carol, { bbox: EARTH, allowed: onlyOrg('a') })
  const exp = String(Math.floor(Date.now() / 1_000) + 3_600)
  const claims = fc.array(
    fc.tuple(
      fc.oneof(
        hostileString,
        fc.constantFrom(
          'role',
          'is_superuser',
          'datum.org_id',
          'a.b.c',
          'ORG_ID',
          'search_path',
          'x$',
          'ünï',
          'sub',
          'iss',
        ),
      ),
      hostileJson,
    ),
    { maxLength: 8 },
  )
  await fc.assert(
    fc.asyncProperty(claims, fc.boolean(), async (members, isOfB) => {
      const own: [string, string][] = isOfB ? [['org_id', '"b"']] : []
      const payload = object([...members, ...own, ['exp', exp]])
      const socket = await WireClient.open(`${world.server.url.replace('http', 'ws')}/ws`, {
        authRequired: true,
        // Its claims may name any organisation but that of the witness: the text is not among the hostile ones.
        allowed: (row) => row.org_id !== 'a',
      })
      socket.send({ type: 'auth', token: await mintTokenOfText(payload) })
      socket.send({ type: 'subscribe', sub: 's', bbox: EARTH })
      socket.views.set('s', emptyView())
      await socket
        .until(() => {
          const { complete, ended } = socket.view()
          return socket.closed !== null || complete >= 0 || ended !== null
        }, 'an answer')
        .catch((error: Error) => {
          if (socket.closed === null) throw error
        })
      if (socket.closed !== null) expect(REFUSALS).toContain(socket.closed.code)
      else if (socket.view().ended === null && isOfB) expect(socket.view().rows.size).toBe(1)
      expectComposure(socket)
      expect(socket.violations).toEqual([])
      socket.kill()
    }),
    fuzzRun('signed claims', 80),
  )
  await world.barrier(witness.client, carol)
  await world.untilTrue(witness.client, witness.view, carol, EARTH)
})

function emptyView() {
  return {
    sub: 's',
    rows: new Map(),
    table: null,
    resumed: null,
    cursor: null,
    isExact: false,
    complete: -1,
    settled: new Set<string>(),
    ended: null,
    rowsReceived: 0,
    goneReceived: 0,
  }
}
