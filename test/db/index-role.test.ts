/** The role that `datum.candidates` runs as: what it may do, when it comes and goes, and what is told where it is missing. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { readTable } from '../../src/db/catalog.ts'
import { checkDatabase } from '../../src/db/check.ts'
import { install, installSql } from '../../src/db/install.ts'
import { uninstall } from '../../src/db/uninstall.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { APP_ROLE } from '../support/postgres.ts'
import { features } from '../support/table-spec.ts'

/** The embedded database is one that all tests share. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const setup = (world: World) => install(world.admin, { tables: world.config.tables, role: APP_ROLE })

async function usesIndex(world: World): Promise<boolean> {
  const table = await readTable(world.openDatabase().sql, world.config.tables[0]!)
  return table.rowSecurity && table.candidatesBypass
}

const roles = (world: World) => world.admin`select from pg_roles where rolname = 'datum_index'`

test('it may look at the places of watched tables, and at nothing else', async () => {
  await using world = await createWorld({
    tables: [features({ columns: ', secret text' }), features({ name: 'notes', geometry: null })],
    before: 'create table unserved (id integer)',
  })
  const columns = await world.admin`
    select c.oid::regclass::text as relation, a.attname::text as column
      from pg_class c join pg_attribute a on a.attrelid = c.oid
     where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relnamespace <> 'information_schema'::regnamespace
       and c.oid::regclass::text in ('features', 'notes', 'unserved', 'datum.meta', 'datum.change', 'datum.batch', 'datum.tick')
       and has_column_privilege('datum_index', c.oid, a.attnum, 'select, insert, update, references')
     order by 1, 2`
  expect([...columns]).toEqual([
    { relation: 'features', column: 'ctid' },
    { relation: 'features', column: 'geom' },
  ])
  const [role] = await world.admin`
    select r.rolcanlogin, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls,
           (select count(*)::int from pg_auth_members m where r.oid in (m.member, m.roleid)) as memberships,
           has_schema_privilege(r.oid, 'datum', 'create') as creates
      from pg_roles r where r.rolname = 'datum_index'`
  expect(role).toEqual({
    rolcanlogin: false,
    rolsuper: false,
    rolinherit: false,
    rolcreaterole: false,
    rolcreatedb: false,
    rolreplication: false,
    rolbypassrls: true,
    memberships: 0,
    creates: false,
  })
  expect(await usesIndex(world)).toBe(true)
})

onServer('again, it changes nothing; a column that is another is given in place of the first', async () => {
  const spec = features({ columns: ', place geometry(Point, 4326)' })
  await using world = await createWorld({ tables: [{ ...spec, geometryColumn: 'geom' }] })
  const options = { tables: world.config.tables, role: APP_ROLE }
  expect(await installSql(world.admin, options)).not.toContain('datum_index')
  const other = { ...options, tables: [{ ...world.config.tables[0]!, geometryColumn: 'place' }] }
  await install(world.admin, other)
  const columns = await world.admin`
    select a.attname::text as column from pg_attribute a
     where a.attrelid = 'features'::regclass and has_column_privilege('datum_index', a.attrelid, a.attnum, 'select') order by 1`
  expect(columns.map(({ column }) => column)).toEqual(['ctid', 'place'])
})

onServer(
  'I4: boxes do not depend on what everybody may: schemas that are closed to PUBLIC while the server runs',
  async () => {
    await using world = await createWorld()
    const { client } = await world.watch(alice)
    await world.admin.unsafe(
      `revoke all on schema public from public; grant usage on schema public to ${APP_ROLE}`,
    )
    const id = await world.put({ org: 'a' })
    const again = await client.subscribe({ sub: 'again', bbox: ZURICH })
    expect([...again.rows.keys()]).toEqual([id])
    expect(await usesIndex(world)).toBe(true)
  },
)

test('I4: a geometry column made anew while the server runs, which the role may not read, is served all the same', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  await world.admin`alter table features drop column geom`
  await world.admin`alter table features add column geom geometry(Point, 4326)`
  await client.until(() => view.ended !== null, 'it ended')
  const id = await world.put({ org: 'a' })
  const again = await client.subscribe({ bbox: ZURICH })
  expect([...again.rows.keys()]).toEqual([id])
  expect(await usesIndex(world)).toBe(false)
  await setup(world)
  expect(await usesIndex(world)).toBe(true)
})

test('check and setup put right what belongs to a superuser, as after a restore without the role', async () => {
  await using world = await createWorld()
  const warnings = async () =>
    (await checkDatabase(world.openDatabase(), world.config)).filter(
      ({ subject }) => subject === 'datum.candidates',
    )
  expect(await warnings()).toEqual([])
  const [installer] = await world.admin<{ name: string }[]>`select quote_ident(current_user) as name`
  await world.admin.unsafe(`
    do $$ begin execute format('alter function %s owner to ${installer?.name}',
      (select oid::regprocedure from pg_proc where pronamespace = 'datum'::regnamespace and proname = 'candidates')); end $$;
    revoke all on features from datum_index`)
  const [warning] = await warnings()
  expect(warning).toMatchObject({ severity: 'warning', remedy: expect.stringContaining('as a superuser') })
  await setup(world)
  expect(await warnings()).toEqual([])
  expect(await usesIndex(world)).toBe(true)
})

onServer('databases of a cluster share it: the first to be uninstalled leaves it to the others', async () => {
  await using world = await createWorld()
  await using other = await createWorld()
  await uninstall(other.admin)
  expect(await roles(world)).toHaveLength(1)
  expect(await usesIndex(world)).toBe(true)
  const { client, view } = await world.watch(alice)
  const id = await world.put({ org: 'a' })
  await client.until(() => view.rows.has(id), 'the row')
  const attributes =
    await other.admin`select attname from pg_attribute where attrelid = 'features'::regclass and attacl is not null`
  expect([...attributes]).toEqual([])
  await uninstall(world.admin)
  const users = await world.admin`
    select from pg_shdepend s join pg_database d on d.oid = s.dbid where s.refobjid = to_regrole('datum_index')`
  expect((await roles(world)).length).toBe(users.length === 0 ? 0 : 1)
  await setup(world)
  expect(await usesIndex(world)).toBe(true)
})

onServer('a role of that name that somebody uses for something else is refused with words', async () => {
  await using world = await createWorld({ start: false })
  await setup(world)
  for (const [damage, repair] of [
    ['alter role datum_index login', 'alter role datum_index nologin'],
    ['alter role datum_index nobypassrls', 'alter role datum_index bypassrls'],
    [`grant datum_index to ${APP_ROLE}`, `revoke datum_index from ${APP_ROLE}`],
    ['grant pg_monitor to datum_index', 'revoke pg_monitor from datum_index'],
  ] as const) {
    await world.admin.unsafe(damage)
    try {
      await expect(setup(world)).rejects.toThrow('datum_index')
    } finally {
      await world.admin.unsafe(repair)
    }
    await setup(world)
  }
})
