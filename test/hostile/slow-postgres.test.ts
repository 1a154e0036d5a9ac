/**
 * A Postgres that is there and does not serve: some or all of its processes stopped (SIGSTOP), no connection to be had.
 * Sockets stay open, edits are answered `unavailable` and sent again by the client, `/readyz` says how it is, and
 * everything goes on by itself. Invariants 5, 7 and 9.
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { DatumClient } from '../../client/index.ts'
import { openPostgres } from '../../src/db/postgres.ts'
import { createLog } from '../../src/observe/log.ts'
import type { RunningServer } from '../../src/server.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, point, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { mintToken } from '../support/token.ts'

setDefaultTimeout(3 * TEST_TIMEOUT_MS)

/** The processes must be of this machine to be stopped, and the embedded Postgres has none. */
const onOwnCluster = test.skipIf(
  (await backendKind()) === 'embedded' || process.env.DATUM_TEST_DATABASE_URL !== undefined,
)

const alice = { sub: 'alice', org_id: 'a' }
const bob = { sub: 'bob', org_id: 'a' }

/** Processes of Postgres that serve this world's server, those among them whose last statement is like that. */
async function backends(world: World, like = '%'): Promise<number[]> {
  const rows = await world.admin<{ pid: number }[]>`
    select pid from pg_stat_activity
    where datname = current_database() and application_name = 'datum-server' and query like ${like}`
  return rows.map(({ pid }) => pid)
}

/** The postmaster, which takes new connections. */
async function postmaster(world: World): Promise<number> {
  const [row] = await world.admin<{ pid: number }[]>`select pg_backend_pid() as pid`
  const stat = await Bun.file(`/proc/${row!.pid}/stat`).text()
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
}

/** Stops processes while `work` runs. */
async function whileStopped(pids: readonly number[], work: () => Promise<void>): Promise<void> {
  expect(pids.length).toBeGreaterThan(0)
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  try {
    await work()
  } finally {
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGCONT')
      } catch {
        // It ended when the server left it.
      }
    }
  }
}

async function untilReadiness(world: World, status: number): Promise<void> {
  const giveUpAt = Date.now() + TEST_TIMEOUT_MS
  while ((await fetch(`${world.server.url}/readyz`)).status !== status) {
    if (Date.now() > giveUpAt) throw new Error(`/readyz never was ${status}`)
    await Bun.sleep(100)
  }
}

/** A server that leaves a silent connection after three seconds and not after twenty. */
function impatientServer(world: World): Promise<RunningServer> {
  const log = createLog('error')
  return world.addServer({ database: openPostgres(world.appUrl!, log, { answerSeconds: 3 }) })
}

/** A client as an application has it, with a view of Zurich. */
async function connectClient(world: World, claims: { sub: string; org_id: string }): Promise<DatumClient> {
  return DatumClient.connect({
    serverUrl: `${world.server.url.replace('http', 'ws')}/ws`,
    bbox: [...ZURICH],
    token: await mintToken(claims),
    connectTimeout: TEST_TIMEOUT_MS,
  })
}

const rowsNamed = async (world: World, name: string) =>
  (await world.admin`select id::text from features where name = ${name}`).map(({ id }) => id as string)

onOwnCluster(
  'I5, I7: a Postgres that answers nobody and takes nobody loses nothing, and all goes on by itself',
  async () => {
    await using world = await createWorld()
    const { client, view } = await world.watch(alice)
    const db = await connectClient(world, bob)
    await db.insert({ org_id: 'a', name: 'before', geom: point(8.5, 47.5) })
    const edit = { op: 'insert', columns: { org_id: 'a', name: 'raw', geom: point(8.5, 47.5) } } as const
    const batch = crypto.randomUUID()
    let insert: Promise<unknown> = Promise.resolve()
    await whileStopped([await postmaster(world), ...(await backends(world))], async () => {
      insert = db.insert({ org_id: 'a', name: 'during', geom: point(8.5, 47.5) })
      client.send({ type: 'write', batch, edits: [edit] })
      // A write by the application meanwhile: its own connection is there still.
      await world.put({ org: 'a', name: 'by the application' })
      await untilReadiness(world, 503)
      expect((await fetch(`${world.server.url}/healthz`)).status).toBe(200)
      // Shown by the client all along, and not settled.
      expect([...db.rows.values()].map(({ name }) => name)).toContain('during')
      expect(await client.next('unavailable')).toMatchObject({ batch })
      await client.ping()
      // A socket that comes now gets in, and waits for its view.
      const late = await world.connect(alice)
      late.startSubscribe({ bbox: ZURICH })
      await late.next('subscribed')
    })
    await untilReadiness(world, 200)
    await insert
    expect((await client.write([edit], { batch })).edits).toMatchObject([{ status: 'applied' }])
    for (const name of ['during', 'raw', 'by the application'])
      expect(await rowsNamed(world, name)).toHaveLength(1)
    await world.barrier(client, alice)
    await world.untilTrue(client, view, alice)
    expect(client.closed).toBeNull()
    expect(db.connectionStatus).toBe('connected')
    expect(db.pendingCount).toBe(0)
    await db.disconnect()
  },
)

onOwnCluster(
  'I9: one connection that nobody answers on any more does not hold up the feed for ever',
  async () => {
    await using world = await createWorld()
    const { client, view } = await world.watch(alice, { server: await impatientServer(world) })
    // A shared read, so that there is a connection for them.
    await world.barrier(client, alice)
    await whileStopped(await backends(world, '%datum.%read_%'), async () => {
      const id = await world.put({ org: 'a', name: 'unheard of' })
      await client.until(() => view.rows.has(id), 'the row, over another connection')
      expect((await fetch(`${world.server.url}/readyz`)).status).toBe(200)
    })
    await world.untilTrue(client, view, alice)
  },
)

onOwnCluster(
  'I7, I9: a connection for edits that nobody answers on is left, and the batch is tried again',
  async () => {
    await using world = await createWorld()
    const { client, view } = await world.watch(alice, { server: await impatientServer(world) })
    await client.write([{ op: 'insert', columns: { org_id: 'a', name: 'first', geom: point(8.5, 47.5) } }])
    await whileStopped(await backends(world, 'commit%'), async () => {
      const { edits } = await client.write([
        { op: 'insert', columns: { org_id: 'a', name: 'second', geom: point(8.5, 47.5) } },
      ])
      expect(edits).toMatchObject([{ status: 'applied' }])
    })
    expect(await rowsNamed(world, 'second')).toHaveLength(1)
    await world.untilTrue(client, view, alice)
  },
)

onOwnCluster(
  'I5, I7: where no further connection is to be had, edits and views wait, and are served when there is',
  async () => {
    await using world = await createWorld()
    const { client, view } = await world.watch(alice)
    const [database] = await world.admin<{ name: string }[]>`select quote_ident(current_database()) as name`
    const limit = (count: number) =>
      world.admin.unsafe(`alter database ${database!.name} connection limit ${count}`)
    // Those that serve views and edits are given back after a minute without work, so they are ended here.
    await limit(1)
    await world.admin`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'datum-server'`
    const batch = crypto.randomUUID()
    const edits = [{ op: 'insert', columns: { org_id: 'a', name: 'waits', geom: point(8.5, 47.5) } }] as const
    client.send({ type: 'write', batch, edits })
    expect(await client.next('unavailable')).toMatchObject({ batch })
    const other = await world.connect(alice)
    const late = other.startSubscribe({ bbox: ZURICH })
    await other.next('subscribed')
    await other.ping()
    expect(late.ended).toBeNull()
    await limit(-1)
    await untilReadiness(world, 200)
    expect((await client.write([...edits], { batch })).edits).toMatchObject([{ status: 'applied' }])
    await other.until(() => late.complete === 0, 'the view')
    await world.barrier(client, alice)
    await world.untilTrue(client, view, alice)
    await world.untilTrue(other, late, alice)
  },
)
