/** What statements may count on while connections open, close and go dead: each is settled, and no connection is lost. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { connect, createServer } from 'node:net'
import postgres from 'postgres'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'
import { proxyTo } from '../support/proxy.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)
const onServer = test.skipIf((await backendKind()) === 'embedded')

/** A URL of this database with such hosts, as libpq has them: each is tried. All are of this machine. */
function urlWith(world: World, ...ports: readonly number[]): string {
  const { hostname, username, password, pathname } = new URL(world.appUrl!)
  return `postgres://${username}:${password}@${ports.map((port) => `${hostname}:${port}`).join(',')}${pathname}`
}

const portOf = (world: World) => Number(new URL(world.appUrl!).port)

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
  const listeningPort = (listening: typeof server) => (listening.address() as { port: number }).port
  beforeAll(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)))
  afterAll(() => void server.close())

  test('I5: is known for what it is at once, and not asked in a loop', async () => {
    connections = 0
    const sql = postgres({
      host: '127.0.0.1',
      port: listeningPort(server),
      max: 1,
      backoff: () => 0.05,
    } as never)
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
    connections = 0
    const sql = postgres(urlWith(world, listeningPort(server), portOf(world)), { max: 1, fetch_types: false })
    const nowhere = postgres(urlWith(world, listeningPort(server), listeningPort(server), 1), {
      max: 1,
      backoff: () => 0.05,
    } as never)
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

  onServer('I9: and a cancellation goes where the query runs', async () => {
    await using world = await createWorld({ start: false })
    const sql = postgres(urlWith(world, listeningPort(server), portOf(world)), { max: 1, fetch_types: false })
    try {
      await sql`select 1`
      const asked = sql`select pg_sleep(3600)`.execute()
      await Bun.sleep(100)
      asked.cancel()
      expect(await asked.catch((error) => error)).toMatchObject({ code: '57014' })
    } finally {
      await sql.end({ timeout: 1 })
    }
  })
})

onServer('I5: a query that was sent to one of several hosts fails with its connection', async () => {
  await using world = await createWorld({ start: false })
  const proxy = await proxyTo(new URL(world.appUrl!))
  const sql = postgres(urlWith(world, proxy.port, portOf(world)), { max: 1, fetch_types: false })
  try {
    const asked = sql`select pg_sleep(3600)`.execute()
    await Bun.sleep(300)
    proxy.end()
    const error = await asked.catch((error) => error)
    expect(['CONNECTION_CLOSED', 'ECONNRESET']).toContain(error.code)
    expect(await sql`select 1 as n`).toMatchObject([{ n: 1 }])
  } finally {
    await sql.end({ timeout: 1 })
    proxy.end()
  }
})

onServer('I5: a line that went dead is noticed however often something is asked on it', async () => {
  await using world = await createWorld({ start: false })
  const proxy = await proxyTo(new URL(world.appUrl!))
  const options = { max: 1, fetch_types: false, answer_timeout: 1 }
  const sql = postgres(urlWith(world, proxy.port), options as never)
  let isSettled = false
  try {
    await sql`select 1`
    proxy.cut(false)
    const asked = sql`select 1`.catch((error) => error).finally(() => (isSettled = true))
    const others: Promise<unknown>[] = []
    for (let time = 0; time < 100 && !isSettled; time++) {
      others.push(sql`select 2`.catch((error) => error))
      await Bun.sleep(100)
    }
    expect(isSettled).toBe(true)
    expect(await asked).toMatchObject({ code: 'CONNECTION_TIMEOUT' })
    await Promise.all(others)
    // Until the connection is known to be closed, which is told a moment later.
    await Bun.sleep(100)
    expect(await sql`select 3 as n`).toMatchObject([{ n: 3 }])
  } finally {
    await sql.end({ timeout: 1 })
    proxy.end()
  }
})

onServer(
  'I5: a connection that is given back while its line is dead leaves its place to another',
  async () => {
    await using world = await createWorld({ start: false })
    const proxy = await proxyTo(new URL(world.appUrl!))
    const sql = postgres(urlWith(world, proxy.port), { max: 1, fetch_types: false, idle_timeout: 0.2 })
    try {
      await sql`select 1`
      proxy.cut(false)
      await Bun.sleep(400)
      expect(await sql`select 2 as n`).toMatchObject([{ n: 2 }])
    } finally {
      await sql.end({ timeout: 1 })
      proxy.end()
    }
  },
)

test('I10: a queue that is never empty, as that of connections at rest, keeps nothing of what it gave out', async () => {
  const { default: Queue } = await import(
    Bun.resolveSync('postgres', import.meta.dir).replace('index.js', 'queue.js')
  )
  /** What the queue holds its elements in, and what it has moved them to. */
  class Elements extends Array<unknown> {
    override slice(from?: number): Elements {
      const copy = super.slice(from) as Elements
      all.push(copy)
      return copy
    }
  }
  const all: Elements[] = []
  const queue = Queue(new Elements())
  queue.push(0)
  for (let next = 1; next <= 1_000; next++) {
    queue.push(next)
    expect(queue.shift()).toBe(next - 1)
  }
  expect(queue.length).toBe(1)
  expect(Math.max(...all.map(({ length }) => length))).toBeLessThan(10)
})
