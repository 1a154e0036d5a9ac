/** What statements may count on: that none but its own run in a transaction, and that each gets its own answer. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { connect, createServer } from 'node:net'
import postgres from 'postgres'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)
const onServer = test.skipIf((await backendKind()) === 'embedded')

test('I1: statements that wait for a connection run in nobody’s open transaction, even after one that sent megabytes', async () => {
  await using world = await createWorld({ start: false })
  const { sql } = world.openDatabase()
  const megabytes = 'x'.repeat(16 << 20)
  let done = false
  const transactions = Array.from({ length: 12 }, () =>
    sql.begin(async (transaction) => {
      await transaction`select set_config('datum.inside', 'yes', true)`
      for (let time = 0; time < 3; time++) {
        await transaction`select length(${megabytes}::text)`
        // The line is free for a moment, and the socket tells that it has sent everything.
        await Bun.sleep(5)
      }
      return (await transaction`select current_setting('datum.inside') as value`)[0]?.value
    }),
  )
  const outside: Promise<string>[] = []
  const ask = async () =>
    (await sql`select coalesce(current_setting('datum.inside', true), '') as value`)[0]?.value
  const asker = (async () => {
    while (!done) {
      outside.push(ask())
      await Bun.sleep(1)
    }
  })()
  try {
    expect(await Promise.all(transactions)).toEqual(transactions.map(() => 'yes'))
  } finally {
    done = true
    await asker
  }
  expect(new Set(await Promise.all(outside))).toEqual(new Set(['']))
})

onServer(
  'I2: each query gets its own answer, also where the socket has room while Postgres is starting',
  async () => {
    await using world = await createWorld({ start: false })
    const { hostname, port } = new URL(world.appUrl!)
    /** Tells that there is room again after everything that is written, the first message included. */
    const socket = () =>
      new Promise((resolve) => {
        const stream = connect(Number(port), hostname, () => resolve(stream))
        const write = stream.write.bind(stream)
        stream.write = ((...written: Parameters<typeof write>) => {
          setImmediate(() => stream.emit('drain'))
          return write(...written)
        }) as typeof stream.write
      })
    const sql = postgres(world.appUrl!, { max: 1, fetch_types: false, socket } as never)
    try {
      const asked = Array.from({ length: 50 }, (_, n) => n)
      const answers = await Promise.all(asked.map(async (n) => (await sql`select ${n}::int as n`)[0]?.n))
      expect(answers).toEqual(asked)
    } finally {
      await sql.end({ timeout: 1 })
    }
  },
)

onServer(
  'I2: a query that is cancelled while it waits on its connection leaves the others their own answers',
  async () => {
    await using world = await createWorld({ start: false })
    const sql = postgres(world.appUrl!, { max: 1, fetch_types: false })
    try {
      await sql`select 1`
      const first = sql`select pg_sleep(0.3)::text, 1 as n`.execute()
      const cancelled = sql`select pg_sleep(30)::text, 2 as n`.execute()
      const last = sql`select 3 as n`.execute()
      // When all are sent, and the first is not answered.
      await Bun.sleep(100)
      cancelled.cancel()
      const [one, two, three] = await Promise.allSettled([first, cancelled, last])
      expect(one).toMatchObject({ status: 'fulfilled', value: [{ n: 1 }] })
      expect(two).toMatchObject({ status: 'rejected', reason: { code: '57014' } })
      expect(three).toMatchObject({ status: 'fulfilled', value: [{ n: 3 }] })
    } finally {
      await sql.end({ timeout: 1 })
    }
  },
)

onServer(
  'I2: a query that cannot be sent is refused alone, and leaves the others their own answers',
  async () => {
    await using world = await createWorld({ start: false })
    const sql = postgres(world.appUrl!, { max: 1, fetch_types: false })
    try {
      await sql`select 1`
      const first = sql`select pg_sleep(0.2)::text, 1 as n`.execute()
      const unsendable = sql`select ${undefined as never}::int as n`.execute()
      const next = sql`select 3 as n`.execute()
      const last = sql`select 4 as n`.execute()
      const [one, two, three, four] = await Promise.allSettled([first, unsendable, next, last])
      expect(one).toMatchObject({ status: 'fulfilled', value: [{ n: 1 }] })
      expect(two).toMatchObject({ status: 'rejected', reason: { code: 'UNDEFINED_VALUE' } })
      expect(three).toMatchObject({ status: 'fulfilled', value: [{ n: 3 }] })
      expect(four).toMatchObject({ status: 'fulfilled', value: [{ n: 4 }] })
    } finally {
      await sql.end({ timeout: 1 })
    }
  },
)

onServer(
  'I9: a query that is cancelled while its connection opens leaves the connection to others',
  async () => {
    await using world = await createWorld({ start: false })
    const { hostname, port } = new URL(world.appUrl!)
    const socket = async () => {
      await Bun.sleep(200)
      return connect(Number(port), hostname)
    }
    const sql = postgres(world.appUrl!, { max: 1, fetch_types: false, socket } as never)
    try {
      const cancelled = sql`select 1 as n`.execute()
      await Bun.sleep(50)
      cancelled.cancel()
      expect(await cancelled.catch((error) => error)).toMatchObject({ code: '57014' })
      expect(await sql`select 2 as n`).toMatchObject([{ n: 2 }])
    } finally {
      await sql.end({ timeout: 1 })
    }
  },
)

describe('a way to Postgres that takes connections and closes them, as a proxy does while Postgres is away', () => {
  let connections = 0
  const server = createServer((socket) => {
    connections++
    socket.on('error', () => {}).end()
  })
  const portOf = (listening: typeof server) => (listening.address() as { port: number }).port
  beforeAll(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)))
  afterAll(() => void server.close())

  test('I5: is known for what it is at once, and not asked in a loop', async () => {
    connections = 0
    const sql = postgres({ host: '127.0.0.1', port: portOf(server), max: 1, backoff: () => 0.05 } as never)
    try {
      for (let time = 1; time <= 3; time++) {
        const error = await sql`select 1`.catch((error) => error)
        expect(['CONNECTION_CLOSED', 'ECONNRESET']).toContain(error.code)
        expect(connections).toBe(time)
      }
    } finally {
      await sql.end({ timeout: 1 })
    }
  })

  onServer('I5: is passed over where there is another', async () => {
    await using world = await createWorld({ start: false })
    const { hostname, port, username, password, pathname } = new URL(world.appUrl!)
    const at = (...ports: number[]) =>
      `postgres://${username}:${password}@${ports.map((each) => `${hostname}:${each}`).join(',')}${pathname}`
    connections = 0
    const sql = postgres(at(portOf(server), Number(port)), { max: 1, fetch_types: false })
    const nowhere = postgres(at(portOf(server), portOf(server), 1), { max: 1, backoff: () => 0.05 } as never)
    try {
      expect(await sql`select 1 as n`).toMatchObject([{ n: 1 }])
      expect(connections).toBe(1)
      for (let time = 1; time <= 3; time++) {
        expect(await nowhere`select 1`.catch((error) => error)).toMatchObject({ code: 'ECONNREFUSED' })
        expect(connections).toBe(1 + 2 * time)
      }
    } finally {
      await Promise.all([sql.end({ timeout: 1 }), nowhere.end({ timeout: 1 })])
    }
  })
})
