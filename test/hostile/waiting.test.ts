/**
 * What may wait on the server for one socket, one user and everybody, while the database keeps them waiting. Invariants
 * 7, 9 and 10.
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { ANONYMOUS } from '../../src/auth/principal.ts'
import type { Table } from '../../src/db/catalog.ts'
import { createLog } from '../../src/observe/log.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { createRateLimit } from '../../src/session/rate-limit.ts'
import { WaitingWrites } from '../../src/session/waiting-writes.ts'
import { WriteQueue } from '../../src/session/write-queue.ts'
import { CloseCode } from '../../src/wire/close-codes.ts'
import {
  BATCHES_UNSETTLED_MAX,
  BATCHES_WAITING_MAX,
  FRAME_BYTES_MAX,
  INBOX_MESSAGES_MAX,
  KEPT_DECODED_MAX,
  NESTING_MAX,
  WAITING_CHARACTERS_IN_ALL_MAX,
  WAITING_CHARACTERS_MAX,
  WAITING_CHARACTERS_PER_USER_MAX,
} from '../../src/wire/limits.ts'
import type { ServerMessage } from '../../src/wire/messages.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'
import type { WireClient } from '../support/wire-client.ts'

setDefaultTimeout(2 * TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const bob = { sub: 'bob', org_id: 'a' }

/** The embedded Postgres is one session, in which nothing waits for another's lock. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

/** A table whose rows can be kept from being written, by a lock that the triggers ask for. */
const gated = features({
  columns: ', note text',
  policies: `
    alter table features enable row level security; alter table features force row level security;
    create policy p on features using (org_id = current_setting('datum.org_id', true));
    create function gate() returns trigger language plpgsql as $$
      begin perform pg_advisory_xact_lock_shared(42); return new; end $$;
    create trigger gate before insert on features for each row execute function gate()`,
})

/** Runs `work` while no row can be written. */
async function whileGated(world: World, work: () => Promise<void>): Promise<void> {
  await world.admin.begin(async (transaction) => {
    await transaction`select pg_advisory_xact_lock(42)`
    await work()
  })
}

/** A batch of one row that takes so many characters on the wire. */
function sendBatch(client: WireClient, characters = 0): string {
  const batch = crypto.randomUUID()
  const frame = (note: string) =>
    JSON.stringify({ type: 'write', batch, edits: [{ op: 'insert', columns: { org_id: 'a', note } }] })
  client.sendRaw(frame('x'.repeat(Math.max(0, characters - frame('').length))))
  return batch
}

const answersOf = (client: WireClient, type: 'unavailable' | 'outcome') =>
  client.frames.flatMap((frame) => (frame.type === type && 'batch' in frame ? [frame.batch] : []))

/** Waits until each batch that was taken has its outcome, and looks for what it says in the table. */
async function expectOutcomes(world: World, client: WireClient, batches: readonly string[]): Promise<void> {
  const refused = new Set(answersOf(client, 'unavailable'))
  const taken = batches.filter((batch) => !refused.has(batch))
  await client.until(
    () => taken.every((batch) => answersOf(client, 'outcome').includes(batch)),
    'the outcomes',
  )
  const applied = client.frames.filter(
    (frame) => frame.type === 'outcome' && frame.edits.every(({ status }) => status === 'applied'),
  )
  expect(applied.length).toBeGreaterThan(0)
  expect(await world.admin`select count(*)::int as n from features`).toMatchObject([{ n: applied.length }])
}

onServer(
  'I7, I10: batches beyond those that may wait are unavailable, and the others are applied',
  async () => {
    await using world = await createWorld({ tables: [gated] })
    const client = await world.connect(alice)
    const batches: string[] = []
    await whileGated(world, async () => {
      for (let n = 0; n < BATCHES_WAITING_MAX + 5; n++) batches.push(sendBatch(client))
      await client.ping()
      expect(answersOf(client, 'unavailable')).toEqual(batches.slice(BATCHES_WAITING_MAX))
    })
    await expectOutcomes(world, client, batches)
  },
)

onServer(
  'I7, I10: so are those whose text is too much together, and large ones are applied as they came',
  async () => {
    await using world = await createWorld({ tables: [gated] })
    const client = await world.connect(alice)
    const size = FRAME_BYTES_MAX - 10
    const batches: string[] = []
    await whileGated(world, async () => {
      for (let n = 0; n < WAITING_CHARACTERS_MAX / FRAME_BYTES_MAX + 1; n++)
        batches.push(sendBatch(client, size))
      await client.ping()
      expect(answersOf(client, 'unavailable')).toEqual(batches.slice(-1))
    })
    await expectOutcomes(world, client, batches)
    const [row] = await world.admin`select min(length(note)) as least from features`
    expect(Number(row!.least)).toBeGreaterThan(KEPT_DECODED_MAX)
  },
)

onServer('I9, I10: a user with many sockets fills their own share, and others write', async () => {
  await using world = await createWorld({ tables: [gated] })
  const sockets = await Promise.all(Array.from({ length: 4 }, () => world.connect(alice)))
  const other = await world.connect(bob)
  const size = FRAME_BYTES_MAX - 10
  let last = ''
  await whileGated(world, async () => {
    for (const client of sockets) {
      sendBatch(client, size)
      sendBatch(client, size)
      await client.ping()
    }
    const fitting = Math.floor(WAITING_CHARACTERS_PER_USER_MAX / size)
    expect(sockets.flatMap((client) => answersOf(client, 'unavailable'))).toHaveLength(8 - fitting)
    last = sendBatch(other)
    await other.ping()
    expect(answersOf(other, 'unavailable')).toEqual([])
  })
  await other.until(() => answersOf(other, 'outcome').includes(last), 'the outcome')
  // Their share is free again.
  for (const client of sockets) {
    const answered = () => answersOf(client, 'outcome').length + answersOf(client, 'unavailable').length
    await client.until(() => answered() === 2, 'both answers')
  }
  const again = sendBatch(sockets[0]!)
  await sockets[0]!.until(() => answersOf(sockets[0]!, 'outcome').includes(again), 'another outcome')
})

test('I10: a batch is not taken while a view of its socket is a thousand behind', async () => {
  const replies: ServerMessage[] = []
  let unsettled = BATCHES_UNSETTLED_MAX
  let tried = 0
  const queue = new WriteQueue(
    {
      hub: { tableNamed: () => ({}) as Table, ring() {} },
      applyBatch: async () => {
        tried++
        return { edits: [], xid: null }
      },
      rateLimit: createRateLimit(0),
      waitingWrites: new WaitingWrites(),
      expiryToleranceSeconds: null,
      log: createLog('silent'),
      metrics: new Metrics(),
    },
    '192.0.2.1',
    { reply: (message) => void replies.push(message), committed() {}, unsettled: () => unsettled },
  )
  const message = { type: 'write', batch: crypto.randomUUID(), edits: [{ op: 'delete', id: '1' }] } as const
  queue.add(message, JSON.stringify(message), ANONYMOUS)
  await queue.drained()
  unsettled--
  queue.add(message, JSON.stringify(message), ANONYMOUS)
  await queue.drained()
  expect(replies.map(({ type }) => type)).toEqual(['unavailable', 'outcome'])
  expect(tried).toBe(1)
})

test('I10: the process has a bound for all users together, and what is given back can be taken again', () => {
  const waiting = new WaitingWrites()
  const users = WAITING_CHARACTERS_IN_ALL_MAX / WAITING_CHARACTERS_PER_USER_MAX
  for (let n = 0; n < users; n++)
    expect(waiting.take(`user ${n}`, WAITING_CHARACTERS_PER_USER_MAX)).toBe(true)
  expect(waiting.take('one more', 1)).toBe(false)
  waiting.giveBack('user 0', WAITING_CHARACTERS_PER_USER_MAX)
  expect(waiting.take('one more', WAITING_CHARACTERS_PER_USER_MAX)).toBe(true)
  expect(waiting.take('one more', 1)).toBe(false)
})

/** Opens a subscription whose answer waits, since to resume it the log must be read. Resolves when that is let go. */
async function whileSubscribing(
  world: World,
  clients: readonly WireClient[],
  work: () => Promise<void>,
): Promise<void> {
  const resume = { cursor: await cursor(world), held: [] }
  await world.admin.begin(async (transaction) => {
    await transaction`lock table datum.change in access exclusive mode`
    for (const client of clients) client.startSubscribe({ sub: 'waits', bbox: ZURICH, resume })
    await work()
  })
}

onServer(
  'I10: messages behind one that takes its time are so many, and then the socket is closed',
  async () => {
    await using world = await createWorld()
    const client = await world.connect(alice)
    const over = await world.connect(alice)
    await whileSubscribing(world, [client, over], async () => {
      for (let n = 0; n < INBOX_MESSAGES_MAX; n++) client.send({ type: 'ping' })
      for (let n = 0; n <= INBOX_MESSAGES_MAX; n++) over.send({ type: 'ping' })
      expect((await over.untilClosed()).code).toBe(CloseCode.rateLimited)
      expect(client.closed).toBeNull()
    })
    const pongs = () => client.frames.filter(({ type }) => type === 'pong').length
    await client.until(() => pongs() === INBOX_MESSAGES_MAX, 'the pongs')
  },
)

onServer(
  'I10: so is one whose messages are too long together; what fits is answered in its order',
  async () => {
    await using world = await createWorld()
    const client = await world.connect(alice)
    const over = await world.connect(alice)
    const long = JSON.stringify({ type: 'unsubscribe', sub: 'waits' }).padEnd(FRAME_BYTES_MAX - 10, ' ')
    await whileSubscribing(world, [client, over], async () => {
      for (let n = 0; n < 2; n++) client.sendRaw(long)
      client.send({ type: 'ping' })
      for (let n = 0; n < 3; n++) over.sendRaw(long)
      expect((await over.untilClosed()).code).toBe(CloseCode.rateLimited)
      expect(client.closed).toBeNull()
    })
    // The long ones were decoded again when their turn came: the subscription is gone.
    expect((await client.next('pong')).cursors).toEqual({})
    expect(client.frames.map(({ type }) => type).slice(0, 2)).toEqual(['authenticated', 'subscribed'])
    await world.put({ org: 'a' })
    const again = await client.subscribe({ sub: 'waits', bbox: ZURICH })
    expect(again.rows.size).toBe(1)
  },
)

/** A cursor as this server would give it. */
async function cursor(world: World): Promise<string> {
  const { client } = await world.watch(alice)
  const { cursor } = client.view()
  client.kill()
  return cursor!
}

test('I9: JSON may be nested so deep and no deeper', async () => {
  await using world = await createWorld({ tables: [features({ columns: ', doc jsonb' })] })
  // The message, the edits, the edit and its columns are levels too.
  const nested = (levels: number) =>
    `{"type":"write","batch":"${crypto.randomUUID()}","edits":[{"op":"insert","columns":{"org_id":"a","doc":${'['.repeat(levels)}${']'.repeat(levels)}}}]}`
  const client = await world.connect(alice)
  client.sendRaw(nested(NESTING_MAX - 4))
  expect((await client.next('outcome')).edits).toMatchObject([{ status: 'applied' }])
  client.sendRaw(nested(NESTING_MAX - 3))
  expect((await client.untilClosed()).code).toBe(CloseCode.badMessage)
})

onServer('I9: however many come back from long ago, two read the change log at a time', async () => {
  await using world = await createWorld()
  const resume = { cursor: await cursor(world), held: [] }
  await world.put({ org: 'a' })
  // Another server, which has not seen what came before it.
  const server = await world.addServer()
  const users = Array.from({ length: 5 }, (_, n) => ({ sub: `user ${n}`, org_id: 'a' }))
  const clients = await Promise.all(users.map((user) => world.connect(user, { server })))
  /** Without the feeds of the two servers, which follow the log and wait before all others. */
  const reading = async () => {
    const [row] = await world.admin<{ n: number }[]>`
      select count(*)::int - 2 as n from pg_stat_activity
       where datname = current_database() and wait_event_type = 'Lock' and query like '%from datum.change%'`
    return row!.n
  }
  await world.admin.begin(async (transaction) => {
    await transaction`lock table datum.change in access exclusive mode`
    for (const client of clients) client.startSubscribe({ sub: 'late', bbox: ZURICH, resume })
    while ((await reading()) < 2) await Bun.sleep(20)
    await Bun.sleep(500)
    expect(await reading()).toBe(2)
  })
  for (const client of clients) await client.next('subscribed')
})
