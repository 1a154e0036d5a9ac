import { describe, expect, test } from 'bun:test'
import { NEW_HISTORY, nextState } from '../../client/connection-state.ts'
import type { DatumClient, DatumError } from '../../client/index.ts'
import { changesOf, connected } from './connected.ts'
import { BOX, FakeWorld, jwt, PLACES, place, placeId, START_MS, settle, watch } from './fake-world.ts'

function errorsOf(client: DatumClient): DatumError[] {
  const errors: DatumError[] = []
  client.onError((error) => errors.push(error))
  return errors
}

describe('after a loss', () => {
  test.each([1006, 1012, 1001, 4408])('with code %p it connects again and resumes', async (code) => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1), place(2), place(3)])
    await world.socket.say({ type: 'view', sub: 's1', rows: [place(4)], gone: [placeId(3)], cursor: 'c2' })
    const changes = changesOf(db)
    const statuses: string[] = []
    db.onStatusChange((status) => statuses.push(status))
    await world.socket.drop(code)
    expect(db.connectionStatus).toBe('connecting')
    expect(db.rows.size).toBe(3)
    await world.clock.advance(1_000)
    await world.socket.open()
    const { sub } = world.socket
    expect(sub).not.toBe('s1')
    expect(world.socket.sent).toEqual([
      {
        type: 'subscribe',
        sub,
        bbox: [...BOX],
        resume: { cursor: 'c2' },
      },
    ])
    await world.socket.say({ type: 'subscribed', sub, table: PLACES, resumed: true })
    await world.socket.say({
      type: 'view',
      sub,
      rows: [place(2, 'renamed')],
      gone: [placeId(1)],
      complete: 0,
      cursor: 'c3',
    })
    expect(changes).toEqual([{ upserts: [place(2, 'renamed')], gone: [placeId(1)] }])
    expect([...db.rows.keys()].sort()).toEqual([placeId(2), placeId(4)])
    expect(statuses).toEqual(['connecting', 'connected'])
  })

  test('a view from nothing takes the place of the old one only when it is complete', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1), place(2), place(3)])
    const changes = changesOf(db)
    await world.socket.drop(1006)
    await world.clock.advance(1_000)
    await world.socket.open()
    const { sub } = world.socket
    await world.socket.say({ type: 'subscribed', sub, table: PLACES, resumed: false })
    await world.socket.say({ type: 'view', sub, rows: [place(2)] })
    expect(db.rows.size).toBe(3)
    expect(changes).toEqual([])
    await world.socket.say({ type: 'view', sub, rows: [place(3, 'renamed'), place(5)], complete: 0 })
    expect(changes).toHaveLength(1)
    expect(changes[0]!.gone).toEqual([placeId(1)])
    expect(changes[0]!.upserts).toEqual([place(3, 'renamed'), place(5)])
    expect([...db.rows.keys()].sort()).toEqual([placeId(2), placeId(3), placeId(5)])
  })

  test('a loss in the middle of a view from nothing loses nothing: the old cursor still stands', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    await world.socket.drop(1006)
    await world.clock.advance(1_000)
    await world.socket.open()
    const { sub } = world.socket
    await world.socket.say({ type: 'subscribed', sub, table: PLACES, resumed: false })
    await world.socket.say({ type: 'view', sub, rows: [place(2)] })
    await world.socket.drop(1006)
    await world.clock.advance(3_000)
    await world.socket.open()
    expect(world.socket.of('subscribe')[0]!.resume).toEqual({ cursor: 'c1', held: [placeId(1)] })
    expect(db.rows.size).toBe(1)
  })

  test('a view from nothing without a cursor forgets the old one', async () => {
    const world = new FakeWorld()
    await connected(world, [place(1)])
    await world.socket.drop(1006)
    await world.clock.advance(1_000)
    await world.socket.open()
    const { sub } = world.socket
    await world.socket.say(
      { type: 'subscribed', sub, table: PLACES, resumed: false },
      { type: 'view', sub, rows: [place(2)], complete: 0 },
    )
    await world.socket.drop(1006)
    await world.clock.advance(3_000)
    await world.socket.open()
    expect(world.socket.of('subscribe')[0]!.resume).toBeUndefined()
  })

  test('what is too much to name is not resumed: the server would not take the message', async () => {
    const ids = (length: number, count: number) =>
      Array.from({ length: count }, (_, n) => ({
        id: `${'東'.repeat(length - 6)}${String(n).padStart(6, '0')}`,
      }))
    for (const rows of [ids(257, 1), ids(200, 8_000)]) {
      const world = new FakeWorld()
      await connected(world, rows, {}, { ...PLACES, idType: 'text' })
      await world.socket.drop(1006)
      await world.clock.advance(1_000)
      await world.socket.open()
      await world.socket.say({ type: 'ended', sub: world.socket.sub, code: 'held_needed', message: '' })
      expect(world.socket.of('subscribe')[1]!.resume).toBeUndefined()
    }
  })

  test('a server that does not know what is held is told, and the rows stay meanwhile', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1), place(2)])
    await world.socket.drop(1006)
    await world.clock.advance(1_000)
    await world.socket.open()
    const first = world.socket.sub
    await world.socket.say({ type: 'ended', sub: first, code: 'held_needed', message: '' })
    const [, again] = world.socket.of('subscribe')
    expect(again?.sub).not.toBe(first)
    expect(again?.resume).toEqual({ cursor: 'c1', held: [placeId(1), placeId(2)] })
    expect(db.rows.size).toBe(2)
    await world.socket.say({ type: 'subscribed', sub: again!.sub, table: PLACES, resumed: true })
    await world.socket.say({ type: 'view', sub: again!.sub, gone: [placeId(1)], complete: 0, cursor: 'c2' })
    expect([...db.rows.keys()]).toEqual([placeId(2)])
  })

  test('rows that came without a cursor are listed with the cursor of before', async () => {
    const world = new FakeWorld()
    await connected(world, [place(1)])
    await world.socket.say({ type: 'view', sub: 's1', rows: [place(2)] })
    await world.socket.drop(1006)
    await world.clock.advance(1_000)
    await world.socket.open()
    expect(world.socket.of('subscribe')[0]!.resume).toEqual({ cursor: 'c1', held: [placeId(1), placeId(2)] })
  })

  test('the cursor of a pong counts, for the subscription it names', async () => {
    const world = new FakeWorld()
    await connected(world, [place(1)])
    await world.socket.say({ type: 'pong', cursors: { s1: 'c9', other: 'x' } })
    await world.socket.drop(1006)
    await world.clock.advance(1_000)
    await world.socket.open()
    expect(world.socket.of('subscribe')[0]!.resume?.cursor).toBe('c9')
  })

  test('what an old socket still says is not heard', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    const old = world.socket
    const say = old.onmessage!
    await old.drop(1006)
    say({ data: JSON.stringify({ type: 'view', sub: 's1', rows: [place(7)] }) } as never)
    expect(db.rows.size).toBe(1)
    await world.clock.advance(1_000)
    await world.socket.open()
    await world.socket.say({ type: 'view', sub: 's1', rows: [place(7)] })
    expect(db.rows.size).toBe(1)
  })
})

test('losses in a row are waited out longer and longer, and a network that is back cuts the wait short', async () => {
  const world = new FakeWorld()
  await connected(world)
  await world.socket.drop(1006)
  for (const waitMs of [750, 1500, 3000, 6000]) {
    const before = world.sockets.length
    await world.clock.advance(waitMs - 1)
    expect(world.sockets).toHaveLength(before)
    await world.clock.advance(1)
    expect(world.sockets).toHaveLength(before + 1)
    await world.socket.drop(1006)
  }
  const before = world.sockets.length
  await world.wake()
  expect(world.sockets).toHaveLength(before + 1)
})

test('an attempt that neither opens nor fails is given up after 15 s', async () => {
  const world = new FakeWorld()
  const db = await connected(world)
  await world.socket.drop(1006)
  await world.clock.advance(1_000)
  expect(world.sockets).toHaveLength(2)
  await world.clock.advance(17_000)
  expect(world.sockets[1]!.closedWith).toBe(1000)
  expect(world.sockets).toHaveLength(3)
  await world.socket.serve()
  expect(db.connectionStatus).toBe('connected')
})

describe('the heartbeat', () => {
  test('pings every 25 s and takes two missed answers for a dead socket', async () => {
    const world = new FakeWorld()
    const db = await connected(world)
    const first = world.socket
    await world.clock.advance(25_000)
    expect(first.of('ping')).toHaveLength(1)
    await first.say({ type: 'pong', cursors: {} })
    await world.clock.advance(50_000)
    expect(first.of('ping')).toHaveLength(3)
    expect(db.connectionStatus).toBe('connected')
    await world.clock.advance(25_000)
    expect(first.closedWith).toBe(1000)
    expect(db.connectionStatus).toBe('connecting')
    await world.clock.advance(1_000)
    expect(world.sockets).toHaveLength(2)
  })

  test('probes at once when the device wakes, and gives a dead socket 5 s', async () => {
    for (const alive of [true, false]) {
      const world = new FakeWorld()
      const db = await connected(world)
      await world.wake()
      await world.wake()
      expect(world.socket.of('ping')).toHaveLength(1)
      if (alive) await world.socket.say({ type: 'pong', cursors: {} })
      await world.clock.advance(5_000)
      expect(db.connectionStatus).toBe(alive ? 'connected' : 'connecting')
    }
  })

  test('notices a sleep that no event announces', async () => {
    const world = new FakeWorld()
    const db = await connected(world)
    world.clock.sleep(3_600_000)
    await world.clock.advance(25_000)
    expect(world.socket.of('ping')).toHaveLength(1)
    await world.clock.advance(5_000)
    expect(db.connectionStatus).toBe('connecting')
  })
})

describe('tokens across sockets', () => {
  test('the function is called on every connect', async () => {
    const world = new FakeWorld()
    let calls = 0
    await connected(world, [], { token: () => jwt({ sub: 'a', jti: ++calls }, 3600) })
    await world.socket.drop(1006)
    await world.clock.advance(1_000)
    await world.socket.open()
    expect(calls).toBe(2)
    expect(world.socket.of('auth')).toEqual([{ type: 'auth', token: jwt({ sub: 'a', jti: 2 }, 3600) }])
  })

  test('the same claims resume; other claims start from nothing, since other rows may be visible', async () => {
    for (const org of ['x', 'y']) {
      const world = new FakeWorld()
      let now = 'x'
      await connected(world, [place(1)], {
        token: () => jwt({ sub: 'a', org: now }, 3600, world.clock.nowMs - START_MS),
      })
      now = org
      await world.socket.drop(1006)
      await world.clock.advance(1_000)
      await world.socket.open()
      await world.socket.say({ type: 'authenticated', expiresAt: null })
      const { resume } = world.socket.of('subscribe')[0]!
      if (org === 'x') expect(resume).toEqual({ cursor: 'c1' })
      else expect(resume).toBeUndefined()
    }
  })

  test("somebody else's token takes neither rows nor edits along", async () => {
    const world = new FakeWorld()
    let subject = 'alice'
    const db = await connected(world, [place(1)], { token: () => jwt({ sub: subject }, 3600) })
    await world.socket.drop(1006)
    const edit = watch(db.update(placeId(1), { name: 'by alice' }))
    subject = 'bob'
    await world.clock.advance(1_000)
    await world.socket.open()
    await world.socket.say({ type: 'authenticated', expiresAt: null })
    expect(edit.error).toMatchObject({ code: 'unauthorized' })
    expect(db.rows.size).toBe(0)
    await world.socket.answer([place(2)])
    expect(world.socket.of('subscribe')[0]!.resume).toBeUndefined()
    expect(world.socket.of('write')).toEqual([])
    expect([...db.rows.keys()]).toEqual([placeId(2)])
  })

  test('a refresh that is for somebody else starts over on a new socket', async () => {
    const world = new FakeWorld()
    let subject = 'alice'
    await connected(world, [place(1)], {
      token: () => jwt({ sub: subject }, 180, (world.clock.nowMs - START_MS) / 1000),
    })
    subject = 'bob'
    const first = world.socket
    for (let n = 0; n < 5; n++) {
      await world.clock.advance(24_000)
      await first.say({ type: 'pong', cursors: {} })
    }
    expect(first.of('auth')).toHaveLength(1)
    expect(first.closedWith).toBe(1000)
    expect(world.sockets).toHaveLength(2)
    await world.socket.open()
    expect(world.socket.of('auth')).toHaveLength(1)
  })

  test('a refused refresh reconnects with a new token; further refusals are told and retried for ever', async () => {
    const world = new FakeWorld()
    let calls = 0
    const db = await connected(world, [place(1)], { token: () => jwt({ sub: 'a', jti: ++calls }, 3600) })
    const errors = errorsOf(db)
    for (let refusal = 0; refusal < 4; refusal++) {
      await world.socket.open()
      await world.socket.drop(4401)
      expect(db.connectionStatus).toBe('connecting')
      const before = world.sockets.length
      while (world.sockets.length === before) await world.clock.advance(500)
    }
    expect(calls).toBe(5)
    expect(errors.map(({ code }) => code)).toEqual(['unauthorized', 'unauthorized', 'unauthorized'])
    await world.socket.serve([place(1)])
    expect(db.connectionStatus).toBe('connected')
  })

  test('a refused token is not offered again', async () => {
    const world = new FakeWorld()
    let token = jwt({ sub: 'a' }, 3600)
    const db = await connected(world, [], { token: () => token })
    errorsOf(db)
    await world.socket.drop(4401)
    await world.clock.advance(120_000)
    expect(world.sockets).toHaveLength(1)
    token = jwt({ sub: 'a', jti: 2 }, 3600)
    await world.clock.advance(30_000)
    expect(world.sockets).toHaveLength(2)
  })

  test('a new token that met the end of the old one is offered again', async () => {
    const world = new FakeWorld()
    let issuedSeconds = 0
    const db = await connected(world, [], { token: () => jwt({ sub: 'a' }, 180, issuedSeconds) })
    errorsOf(db)
    issuedSeconds = 120
    for (let n = 0; n < 5; n++) {
      await world.clock.advance(24_000)
      await world.socket.say({ type: 'pong', cursors: {} })
    }
    expect(world.socket.of('auth')).toHaveLength(2)
    await world.socket.drop(4401)
    await world.clock.advance(1_000)
    await world.socket.open()
    expect(world.socket.of('auth')).toEqual([{ type: 'auth', token: jwt({ sub: 'a' }, 180, 120) }])
  })

  test('a static token that is refused later is the end: told, and pending edits reject', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)], { token: 'static' })
    const errors = errorsOf(db)
    const edit = watch(db.update(placeId(1), { name: 'x' }))
    await world.socket.drop(4401)
    await settle()
    expect(edit.error).toMatchObject({ code: 'unauthorized' })
    expect(errors.map(({ code }) => code)).toEqual(['unauthorized'])
    expect(db.connectionStatus).toBe('disconnected')
    await world.clock.advance(600_000)
    expect(world.sockets).toHaveLength(1)
  })

  test('a function that hangs on reconnect is called again after 20 s', async () => {
    const world = new FakeWorld()
    let calls = 0
    const db = await connected(world, [], {
      token: () => (++calls === 2 ? new Promise<string>(() => {}) : jwt({ sub: 'a', jti: calls }, 3600)),
    })
    const errors = errorsOf(db)
    await world.socket.drop(1006)
    await world.clock.advance(15_000)
    expect(calls).toBe(2)
    await world.clock.advance(10_000)
    expect(calls).toBe(3)
    expect(errors.map(({ code }) => code)).toEqual(['token_failed'])
    await world.socket.serve()
    expect(db.connectionStatus).toBe('connected')
  })
})

describe('a subscription that ends', () => {
  test('drops its rows, is told, and is asked for again after a refresh or a reconnect', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)], {
      token: () => jwt({ sub: 'a' }, 180, (world.clock.nowMs - START_MS) / 1000),
    })
    const errors = errorsOf(db)
    const changes = changesOf(db)
    await world.socket.say({ type: 'ended', sub: 's1', code: 'policy_error', message: 'no' })
    expect(errors).toMatchObject([{ code: 'policy_error', message: 'no' }])
    expect(changes).toEqual([{ upserts: [], gone: [placeId(1)] }])
    expect(db.connectionStatus).toBe('connected')
    await world.clock.advance(24_000)
    expect(world.socket.of('subscribe')).toHaveLength(1)
    for (let n = 0; n < 4; n++) {
      await world.socket.say({ type: 'pong', cursors: {} })
      await world.clock.advance(24_000)
    }
    await world.socket.say({ type: 'authenticated', expiresAt: null })
    expect(world.socket.of('subscribe')).toMatchObject([{}, { sub: 's2' }])
    expect(world.socket.of('subscribe')[1]!.resume).toBeUndefined()
    await world.socket.answer([place(1)])
    expect(db.rows.size).toBe(1)
  })

  test('over a changed schema is asked for at once, and keeps its rows until the new ones are complete', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    const errors = errorsOf(db)
    await world.socket.say({ type: 'ended', sub: 's1', code: 'schema_changed', message: '' })
    expect(world.socket.of('subscribe')).toMatchObject([{}, { sub: 's2' }])
    expect(world.socket.of('subscribe')[1]!.resume).toBeUndefined()
    expect(db.rows.size).toBe(1)
    await world.socket.say({ type: 'ended', sub: 's2', code: 'schema_changed', message: '' })
    expect(world.socket.of('subscribe')).toHaveLength(2)
    await world.clock.advance(1_000)
    await world.socket.answer([{ ...place(1), extra: 1 }])
    expect(db.rows.get(placeId(1))).toMatchObject({ extra: 1 })
    expect(errors).toEqual([])
  })
})

test.each(['error', 'forbidden'] as const)(
  'a table that is not served at the moment (%s) is asked for again, ever more rarely, and told of once',
  async (code) => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    const errors = errorsOf(db)
    await world.socket.say({ type: 'ended', sub: 's1', code, message: 'not served at the moment' })
    expect(db.rows.size).toBe(0)
    for (const [n, waitMs] of [3_750, 7_500, 15_000, 30_000, 45_000, 45_000].entries()) {
      const asked = world.socket.of('subscribe').length
      await world.clock.advance(waitMs - 1)
      expect(world.socket.of('subscribe')).toHaveLength(asked)
      await world.clock.advance(1)
      expect(world.socket.of('subscribe')).toHaveLength(asked + 1)
      // The pings of the minutes that pass.
      await world.socket.say({ type: 'pong', cursors: {} })
      await world.socket.say({ type: 'ended', sub: `s${n + 2}`, code, message: 'still not' })
    }
    expect(errors).toMatchObject([{ code }])
    await world.clock.advance(45_000)
    await world.socket.answer([place(2)])
    expect([...db.rows.keys()]).toEqual([placeId(2)])
    await world.socket.say({ type: 'ended', sub: world.socket.sub, code, message: 'again' })
    expect(errors).toHaveLength(2)
    const asked = world.socket.of('subscribe').length
    await db.disconnect()
    await world.clock.advance(600_000)
    expect(world.socket.of('subscribe')).toHaveLength(asked)
  },
)

test('a thousand clients that a restart has cut off come back spread over half a second, none at once', () => {
  const delays = Array.from({ length: 1_000 }, (_, n) => {
    const ready = { phase: 'ready', history: NEW_HISTORY, sinceMs: 0 } as const
    const closed = { type: 'closed', code: 1012, detail: null } as const
    const state = nextState(ready, closed, { nowMs: 60_000, random: () => n / 1_000, token: 'none' })
    return state.phase === 'waiting' ? state.delayMs : Number.NaN
  })
  expect(Math.min(...delays)).toBe(500)
  for (let from = 500; from < 1_000; from += 50)
    expect(delays.filter((delay) => delay >= from && delay < from + 50).length).toBeWithin(90, 111)
})

test.each([
  ['4400', 4400, 'bad_message'],
  ['4413', 4413, 'too_large'],
])('close code %s ends the client, since the same would happen again', async (_name, code, expected) => {
  const world = new FakeWorld()
  const db = await connected(world)
  const errors = errorsOf(db)
  await world.socket.drop(code)
  expect(errors).toMatchObject([{ code: expected }])
  expect(db.connectionStatus).toBe('disconnected')
  await world.clock.advance(600_000)
  expect(world.sockets).toHaveLength(1)
})

test.each([
  ['not json'],
  ['null'],
  [new ArrayBuffer(8)],
  [JSON.stringify({ type: 'view', sub: 's1', rows: [{}] })],
])('a frame that is no message (%p) costs the socket and nothing else', async (data) => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1)])
  const errors = errorsOf(db)
  await world.socket.sayText(data)
  expect(errors).toMatchObject([{ code: 'bad_message' }])
  expect(world.socket.closedWith).toBe(1000)
  await world.clock.advance(1_000)
  await world.socket.serve([place(1)])
  expect(db.connectionStatus).toBe('connected')
})

test('a message of a type from the future is ignored', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1)])
  await world.socket.sayText('{"type":"weather"}')
  expect(db.connectionStatus).toBe('connected')
})
