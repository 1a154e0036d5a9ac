/** What statements may count on while connections open, close and go dead: each is settled, and no connection is lost. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { connect, createServer } from 'node:net'
import { backendKind } from '../support/backend.ts'
import { openConnections } from '../support/connections.ts'
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
    await using sql = openConnections(world.appUrl!, { socket })
    const cancelled = sql`select 1 as n`.execute()
    await Bun.sleep(50)
    cancelled.cancel()
    expect(await cancelled.catch((error) => error)).toMatchObject({ code: '57014' })
    expect(await sql`select 2 as n`).toMatchObject([{ n: 2 }])
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
    await using sql = openConnections(`postgres://nobody@127.0.0.1:${listeningPort(server)}/nothing`, {
      backoff: () => 0.05,
    })
    for (let time = 1; time <= 3; time++) {
      const error = await sql`select 1`.catch((error) => error)
      expect(['CONNECTION_CLOSED', 'ECONNRESET']).toContain(error.code)
      expect(connections).toBe(time)
    }
  })

  onServer('I5: is passed over where there is another', async () => {
    await using world = await createWorld({ start: false })
    connections = 0
    await using sql = openConnections(urlWith(world, listeningPort(server), portOf(world)))
    await using nowhere = openConnections(urlWith(world, listeningPort(server), listeningPort(server), 1), {
      backoff: () => 0.05,
    })
    expect(await sql`select 1 as n`).toMatchObject([{ n: 1 }])
    expect(connections).toBe(1)
    for (let time = 1; time <= 3; time++) {
      expect(await nowhere`select 1`.catch((error) => error)).toMatchObject({ code: 'ECONNREFUSED' })
      expect(connections).toBe(1 + 2 * time)
    }
  })

  onServer('I9: and a cancellation goes where the query runs', async () => {
    await using world = await createWorld({ start: false })
    await using sql = openConnections(urlWith(world, listeningPort(server), portOf(world)))
    await sql`select 1`
    const asked = sql`select pg_sleep(3600)`.execute()
    await Bun.sleep(100)
    asked.cancel()
    expect(await asked.catch((error) => error)).toMatchObject({ code: '57014' })
  })
})

onServer('I5: a query that was sent to one of several hosts fails with its connection', async () => {
  await using world = await createWorld({ start: false })
  using proxy = await proxyTo(world.appUrl!)
  await using sql = openConnections(urlWith(world, proxy.port, portOf(world)))
  const asked = sql`select pg_sleep(3600)`.execute()
  await Bun.sleep(300)
  proxy.end()
  const error = await asked.catch((error) => error)
  expect(['CONNECTION_CLOSED', 'ECONNRESET']).toContain(error.code)
  expect(await sql`select 1 as n`).toMatchObject([{ n: 1 }])
})

onServer('I5: a line that went dead is noticed however often something is asked on it', async () => {
  await using world = await createWorld({ start: false })
  using proxy = await proxyTo(world.appUrl!)
  await using sql = openConnections(urlWith(world, proxy.port), { answer_timeout: 1 })
  let isSettled = false
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
})

onServer(
  'I5: a connection that is given back while its line is dead leaves its place to another',
  async () => {
    await using world = await createWorld({ start: false })
    using proxy = await proxyTo(world.appUrl!)
    await using sql = openConnections(urlWith(world, proxy.port), { idle_timeout: 0.2 })
    await sql`select 1`
    proxy.cut(false)
    await Bun.sleep(400)
    expect(await sql`select 2 as n`).toMatchObject([{ n: 2 }])
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
