/** What was installed for another shape of the table. Invariants 4 and 5. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import type { Config } from '../../src/config/config.ts'
import { install } from '../../src/db/install.ts'
import { OperatorError } from '../../src/operator-error.ts'
import type { RunningServer } from '../../src/server.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { features, tableConfig } from '../support/table-spec.ts'

/** The embedded Postgres is one session: whatever runs there holds up everything, as docs/ARCHITECTURE.md says. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(TEST_TIMEOUT_MS)
async function startOn(world: World, config: Config): Promise<RunningServer | null> {
  try {
    return await world.addServer({ config })
  } catch (error) {
    if (error instanceof OperatorError) return null
    throw error
  }
}
const alice = { sub: 'alice', org_id: 'a' }

test('I4: changes are seen after the geometry column got another SRID', async () => {
  await using world = await createWorld()
  const id = await world.put({ org: 'a' })
  const { client, view } = await world.watch(alice)
  await world.admin`alter table features alter column geom type geometry(Geometry, 3857) using st_transform(geom, 3857)`
  await client.until(() => view.ended !== null, 'it ended')
  const again = await client.subscribe({ bbox: ZURICH })
  expect(again.rows.size).toBe(1)
  await world.admin`update features set name = 'new' where id = ${id}`
  await client.until(() => again.rows.get(id)?.name === 'new', 'the change')
})

test('I4: changes are seen after datum.yaml names another geometry column, and the server was restarted', async () => {
  const spec = features({ columns: ', place geometry(Point, 4326)' })
  await using world = await createWorld({ tables: [spec] })
  const config = { ...world.config, tables: [{ ...tableConfig(spec), geometryColumn: 'place' }] }
  // Refusing to start until `setup` was run again is as good.
  const server = await startOn(world, config)
  if (server === null) return
  const client = await world.connect(alice, { server })
  const view = await client.subscribe({ bbox: ZURICH })
  await world.admin`insert into features (org_id, place) values ('a', st_setsrid(st_makepoint(8.5, 47.5), 4326))`
  await client.until(() => view.rows.size === 1, 'the row')
})

test('I4: changes are seen after datum.yaml names another id column, and the server was restarted', async () => {
  const spec = features({ columns: ', code text not null unique default gen_random_uuid()::text' })
  await using world = await createWorld({ tables: [spec] })
  const config = { ...world.config, tables: [{ ...tableConfig(spec), idColumn: 'code' }] }
  // Refusing to start until `setup` was run again is as good.
  const server = await startOn(world, config)
  if (server === null) return
  const client = await world.connect(alice, { server })
  const view = await client.subscribe({ bbox: ZURICH })
  await world.put({ org: 'a' })
  await client.until(() => view.rows.size === 1, 'the row')
})

test('I5: a table that was dropped and made anew is live, or refused; not silently dead', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  const spec = features()
  await world.admin.unsafe(
    `drop table features; ${spec.sql}; grant select, insert, update, delete on features to datum_app; ${spec.policies}`,
  )
  await client.until(() => view.ended !== null, 'it ended')
  const again = await client.subscribe({ bbox: ZURICH })
  if (again.ended) return
  await world.put({ org: 'a' })
  await client.until(() => again.rows.size === 1 || again.ended !== null, 'the row, or the end')
})

test('I5: triggers switched off and on again while sockets are open (pg_restore --disable-triggers)', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  await world.admin`alter table features disable trigger all`
  const id = await world.put({ org: 'a' })
  await world.admin`alter table features enable trigger all`
  await client.until(() => view.rows.has(id), 'the row')
})

onServer(
  'I5: what logical replication or a tool with session_replication_role = replica writes is seen',
  async () => {
    await using world = await createWorld()
    const { client, view } = await world.watch(alice)
    const id = await world.admin.begin(async (transaction) => {
      await transaction`set local session_replication_role = replica`
      const [row] =
        await transaction`insert into features (org_id, geom) values ('a', st_setsrid(st_makepoint(8.5, 47.5), 4326)) returning id`
      return row?.id as string
    })
    await client.until(() => view.rows.has(id), 'the row')
  },
)

test('a role that may read the columns and not the whole table is served', async () => {
  await using world = await createWorld({ tables: [features({ columns: ', secret text' })], start: false })
  await install(world.admin, { tables: world.config.tables, role: 'datum_app' })
  await world.admin`revoke select on features from datum_app`
  await world.admin`grant select (id, org_id, name, size, geom) on features to datum_app`
  await world.put({ org: 'a' })
  await world.addServer()
  const client = await world.connect(alice)
  const view = await client.subscribe({ bbox: ZURICH })
  expect(view.ended).toBeNull()
  expect(view.rows.size).toBe(1)
})

test('a column that may not be read any more: the rest is served', async () => {
  await using world = await createWorld({
    tables: [features({ columns: ', secret text', geometry: null })],
    start: false,
  })
  await install(world.admin, { tables: world.config.tables, role: 'datum_app' })
  await world.admin`revoke select on features from datum_app`
  await world.admin`grant select (id, org_id, name, size, secret) on features to datum_app`
  await world.put({ org: 'a' })
  await world.addServer()
  const client = await world.connect(alice)
  expect((await client.subscribe({})).rows.size).toBe(1)
  await world.admin`revoke select (secret) on features from datum_app`
  const view = client.view('s')
  // Longer than it takes to look at the fingerprint.
  await Promise.race([client.until(() => view.ended, 'ended'), Bun.sleep(7_000)])
  const other = await world.connect(alice)
  expect((await other.subscribe({})).ended?.code ?? null).toBeNull()
})
