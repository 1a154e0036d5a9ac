import { describe, expect, test } from 'bun:test'
import { socketUrl } from '../../client/connect-options.ts'
import { DatumClient, type DatumError } from '../../client/index.ts'
import { connected, connecting } from './connected.ts'
import { BOX, FakeWorld, jwt, PLACES, place, placeId, START_MS, settle, watch } from './fake-world.ts'

test('resolves when the first view is complete, and has its rows then', async () => {
  const world = new FakeWorld()
  const statuses: string[] = []
  const { client } = await connecting(world, { onStatusChange: (status) => statuses.push(status) })
  const fate = watch(client)
  await world.socket.open()
  expect(world.socket.sent).toEqual([{ type: 'subscribe', sub: 's1', bbox: [...BOX] }])
  const { sub } = world.socket
  await world.socket.say({ type: 'subscribed', sub, table: PLACES, resumed: false })
  await world.socket.say({ type: 'view', sub, rows: [place(1)] })
  expect(fate.settled).toBe(false)
  await world.socket.say({ type: 'view', sub, rows: [place(2)], complete: 0, cursor: 'c' })
  const db = await client
  expect([...db.rows.keys()]).toEqual([placeId(1), placeId(2)])
  expect(db.connectionStatus).toBe('connected')
  expect(statuses).toEqual(['connecting', 'connected'])
})

test('with a token, nothing but the token is sent before the server has accepted it', async () => {
  const world = new FakeWorld()
  const token = jwt({ sub: 'a' }, 3600)
  const { client } = await connecting(world, { token: async () => token, table: 'places' })
  expect(world.socket.url).toBe('ws://server.test/ws')
  expect(world.socket.sent).toEqual([])
  await world.socket.open()
  expect(world.socket.sent).toEqual([{ type: 'auth', token }])
  await world.socket.say({ type: 'authenticated', expiresAt: 1 })
  expect(world.socket.of('subscribe')).toEqual([
    { type: 'subscribe', sub: 's1', table: 'places', bbox: [...BOX] },
  ])
  await world.socket.answer()
  expect((await client).connectionStatus).toBe('connected')
})

test('a table without geometry is subscribed to without a box', async () => {
  const world = new FakeWorld()
  await connected(world, [], { bbox: undefined }, { ...PLACES, geometryColumn: null })
  expect(world.socket.sent).toEqual([{ type: 'subscribe', sub: 's1' }])
})

describe('the address', () => {
  test.each([
    ['wss://a.test', 'wss://a.test/ws'],
    ['wss://a.test/', 'wss://a.test/ws'],
    ['wss://a.test/ws', 'wss://a.test/ws'],
    ['ws://a.test:1234/deep/er?x=1#y', 'ws://a.test:1234/deep/er?x=1'],
    ['https://a.test', 'wss://a.test/ws'],
    ['http://localhost:3000', 'ws://localhost:3000/ws'],
    ['HTTPS://A.test/x', 'wss://a.test/x'],
  ])('%s means %s', (given, url) => {
    expect(socketUrl(given)).toBe(url)
  })

  test.each(['', 'a.test', 'ftp://a.test', 'javascript:alert(1)', '/ws'])('%p is refused', (given) => {
    expect(() => socketUrl(given)).toThrow(expect.objectContaining({ code: 'invalid' }))
  })
})

test.each([
  ['a box of three numbers', { bbox: [1, 2, 3] }],
  ['a box beyond the globe', { bbox: [0, 0, 200, 10] }],
  ['an empty token', { token: '' }],
  ['a token that is a number', { token: 5 }],
  ['a table without a name', { table: '' }],
  ['a timeout of 0', { connectTimeout: 0 }],
  ['a timeout that is no number', { connectTimeout: 'soon' }],
  ['an address that is none', { serverUrl: 'nowhere' }],
])('%s rejects before there is a socket', async (_name, options) => {
  const world = new FakeWorld()
  const fate = watch((await connecting(world, options as object)).client)
  await settle()
  expect(fate.error).toMatchObject({ name: 'DatumError', code: 'invalid' })
  expect(world.sockets).toHaveLength(0)
})

test('a socket that the environment refuses rejects', async () => {
  const world = new FakeWorld()
  const environment = {
    ...world.environment,
    openSocket: () => {
      throw new Error('SecurityError')
    },
  }
  const fate = watch(DatumClient.connectIn(environment, { serverUrl: 'ws://a.test', bbox: BOX }))
  await settle()
  expect(fate.error).toMatchObject({ code: 'invalid' })
  expect(world.clock.timerCount).toBe(0)
})

describe('4401', () => {
  test.each([
    ['no token', undefined],
    ['a static token', 'secret-token'],
  ])('rejects at once with %s, quoting no token', async (_name, token) => {
    const world = new FakeWorld()
    const statuses: string[] = []
    const { client } = await connecting(world, { token, onStatusChange: (status) => statuses.push(status) })
    const fate = watch(client)
    await world.socket.open()
    await world.socket.say({ type: 'error', code: 4401, message: 'the signature does not verify' })
    await world.socket.drop(4401)
    expect(fate.error).toMatchObject({ code: 'unauthorized' })
    expect((fate.error as Error).message).toContain('the signature does not verify')
    expect((fate.error as Error).message).not.toContain('secret-token')
    expect(statuses).toEqual(['connecting', 'disconnected'])
    await world.clock.advance(600_000)
    expect(world.sockets).toHaveLength(1)
    expect([world.clock.timerCount, world.wakerCount]).toEqual([0, 0])
  })

  test('calls a token function once more, and connects if that helps', async () => {
    const world = new FakeWorld()
    let calls = 0
    const { client } = await connecting(world, { token: () => jwt({ n: ++calls }, 3600) })
    await world.socket.open()
    await world.socket.drop(4401)
    await world.clock.advance(1000)
    expect(calls).toBe(2)
    expect(world.sockets).toHaveLength(2)
    await world.socket.serve([place(1)])
    expect((await client).rows.size).toBe(1)
  })

  test('rejects if the second token is refused too, or is the same', async () => {
    for (const same of [true, false]) {
      const world = new FakeWorld()
      let calls = 0
      const token = () => jwt({ n: same ? 0 : ++calls }, 3600)
      const fate = watch((await connecting(world, { token })).client)
      await world.socket.open()
      await world.socket.drop(4401)
      await world.clock.advance(1000)
      if (!same) {
        await world.socket.open()
        await world.socket.drop(4401)
      }
      expect(fate.error).toMatchObject({ code: 'unauthorized' })
      expect(world.sockets).toHaveLength(same ? 1 : 2)
    }
  })
})

describe('connectTimeout', () => {
  test('is 10 s, rejects and leaves nothing behind', async () => {
    const world = new FakeWorld()
    const fate = watch((await connecting(world)).client)
    await world.clock.advance(9_999)
    expect(fate.settled).toBe(false)
    await world.clock.advance(1)
    expect(fate.error).toMatchObject({ code: 'timeout' })
    expect(world.socket.closedWith).toBe(1000)
    expect([world.clock.timerCount, world.wakerCount]).toEqual([0, 0])
  })

  test('bounds the attempts at a server that is away, and says what happened', async () => {
    const world = new FakeWorld()
    const fate = watch((await connecting(world, { connectTimeout: 5_000 })).client)
    for (let attempt = 0; attempt < 3; attempt++) {
      await world.socket.drop(1006)
      await world.clock.advance(1_600)
    }
    await world.clock.advance(5_000)
    expect(fate.error).toMatchObject({ code: 'timeout' })
    expect((fate.error as Error).message).toContain('code 1006')
    expect(world.sockets.length).toBeGreaterThan(1)
  })

  test('does not count against a long first view while its rows come in', async () => {
    const world = new FakeWorld()
    const { client } = await connecting(world)
    await world.socket.open()
    const { sub } = world.socket
    await world.socket.say({ type: 'subscribed', sub, table: PLACES, resumed: false })
    for (let n = 0; n < 5; n++) {
      await world.clock.advance(9_000)
      await world.socket.say({ type: 'view', sub, rows: [place(n)] })
    }
    await world.socket.say({ type: 'view', sub, complete: 0 })
    expect((await client).rows.size).toBe(5)
  })

  test('can be for ever', async () => {
    const world = new FakeWorld()
    const { client } = await connecting(world, { connectTimeout: Number.POSITIVE_INFINITY })
    await world.clock.advance(86_400_000)
    await world.socket.serve()
    expect((await client).connectionStatus).toBe('connected')
  })

  test('rejects with token_failed if the token function was what failed', async () => {
    const world = new FakeWorld()
    const cause = new Error('signed out')
    const { client } = await connecting(world, {
      token: () => {
        throw cause
      },
    })
    const fate = watch(client)
    await world.clock.advance(10_000)
    expect(fate.error).toMatchObject({ code: 'token_failed', cause })
    expect(world.sockets).toHaveLength(0)
  })

  test('rejects while the token function hangs', async () => {
    const world = new FakeWorld()
    const fate = watch((await connecting(world, { token: () => new Promise<string>(() => {}) })).client)
    await world.clock.advance(10_000)
    expect(fate.error).toMatchObject({ code: 'timeout' })
    expect(world.clock.timerCount).toBe(0)
  })
})

test('a token function that fails at first is asked again', async () => {
  const world = new FakeWorld()
  let calls = 0
  const { client } = await connecting(world, {
    token: () => {
      if (++calls === 1) throw new Error('flaky')
      return jwt({}, 3600)
    },
  })
  await world.clock.advance(1_000)
  await world.socket.serve()
  expect((await client).connectionStatus).toBe('connected')
})

test.each(['unknown_table', 'policy_error', 'too_many_rows', 'invalid'] as const)(
  'a subscription that ends at once with %s rejects with that code',
  async (code) => {
    const world = new FakeWorld()
    const fate = watch((await connecting(world)).client)
    await world.socket.open()
    await world.socket.say({ type: 'ended', sub: world.socket.sub, code, message: 'no' })
    expect(fate.error).toMatchObject({ code, message: 'no' })
    expect(world.socket.closedWith).toBe(1000)
  },
)

test('the token is refreshed on the open socket 60 s before its end: no reconnect, no new subscription', async () => {
  const world = new FakeWorld()
  let calls = 0
  const issued: string[] = []
  const db = await connected(world, [place(1)], {
    token: () => {
      calls++
      issued.push(jwt({ sub: 'a' }, 3600, (world.clock.nowMs - START_MS) / 1000))
      return issued.at(-1)!
    },
  })
  const errors: DatumError[] = []
  db.onError((error) => errors.push(error))
  const beat = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 25_000) {
      await world.clock.advance(25_000)
      await world.socket.say({ type: 'pong', cursors: {} })
    }
  }
  await beat(3_525_000)
  expect(calls).toBe(1)
  await beat(25_000)
  expect(calls).toBe(2)
  expect(world.socket.of('auth')).toEqual(issued.map((token) => ({ type: 'auth', token })))
  await world.socket.say({ type: 'authenticated', expiresAt: null })
  await beat(3_550_000)
  expect(calls).toBe(3)
  expect(world.sockets).toHaveLength(1)
  expect(world.socket.of('subscribe')).toHaveLength(1)
  expect(db.rows.size).toBe(1)
  expect(errors).toEqual([])
})

test('disconnect closes the socket, ends the status and leaves no timer', async () => {
  const world = new FakeWorld()
  const statuses: string[] = []
  const db = await connected(world, [place(1)], { token: () => jwt({}, 3600) })
  db.onStatusChange((status) => statuses.push(status))
  const errors: DatumError[] = []
  db.onError((error) => errors.push(error))
  await db.disconnect()
  await db.disconnect()
  expect(world.socket.closedWith).toBe(1000)
  expect(statuses).toEqual(['disconnected'])
  expect(errors).toEqual([])
  expect([world.clock.timerCount, world.wakerCount]).toEqual([0, 0])
  for (const late of [db.insert({}), db.update('x', {}), db.delete('x'), db.setBbox([1, 1, 2, 2])]) {
    const fate = watch<unknown>(late)
    await settle()
    expect(fate.error).toMatchObject({ code: 'disconnected' })
  }
  expect(db.rows.size).toBe(1)
})

test('a listener that disconnects when told of a loss ends the client for good', async () => {
  const world = new FakeWorld()
  const db = await connected(world)
  db.onStatusChange((status) => {
    if (status === 'connecting') void db.disconnect()
  })
  await world.socket.drop(1006)
  expect(world.clock.timerCount).toBe(0)
  expect(world.sockets).toHaveLength(1)
  expect(db.connectionStatus).toBe('disconnected')
})
