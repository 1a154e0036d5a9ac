/** `setup` on a database in use: again, several at once, behind long transactions, from an older version. Invariant 11. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import type { Sql } from 'postgres'
import { install, installSql } from '../../src/db/install.ts'
import { SCHEMA_VERSION } from '../../src/db/schema-version.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'
import { APP_ROLE, quietSql } from '../support/postgres.ts'
import { features } from '../support/table-spec.ts'

/** The embedded Postgres is one session, in which nobody can be in the way of anybody. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(2 * TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const INSERT = `insert into features (org_id, geom) values ('a', st_setsrid(st_makepoint(8.5, 47.5), 4326))`
const setup = (world: World, sql: Sql = world.admin) =>
  install(sql, { tables: world.config.tables, role: APP_ROLE })

/** A transaction of the application that has written and goes on. Resolves to a function that ends it. */
async function longTransaction(world: World): Promise<() => Promise<void>> {
  const { promise: ended, resolve: end } = Promise.withResolvers<void>()
  const begun = Promise.withResolvers<void>()
  const whole = world.admin.begin(async (transaction) => {
    await transaction.unsafe(INSERT)
    begun.resolve()
    await ended
  })
  await begun.promise
  return async () => {
    end()
    await whole
  }
}

onServer('I11: behind a long transaction it waits so briefly that no write queues up for long', async () => {
  await using world = await createWorld({ start: false })
  const end = await longTransaction(world)
  let isInstalled = false
  const installing = setup(world).then(() => {
    isInstalled = true
  })
  const application = quietSql(world.adminUrl!)
  // With less patience than a lock queue of five seconds would ask for.
  await application`set lock_timeout = '3s'`
  for (let n = 0; n < 60; n++) {
    await application.unsafe(`set lock_timeout = '3s'; ${INSERT}`)
    await Bun.sleep(50)
  }
  expect(isInstalled).toBe(false)
  await end()
  await installing
  await application.end()
  await world.admin.unsafe(INSERT)
  expect((await world.admin`select from datum.change`).length).toBeGreaterThan(0)
})

onServer(
  'I11: again, where all is as it should be, takes no lock on the tables and shuts out no write',
  async () => {
    await using world = await createWorld({ start: false })
    await setup(world)
    const end = await longTransaction(world)
    await setup(world)
    await end()
  },
)

onServer('again, it leaves views that are open alone', async () => {
  await using world = await createWorld()
  const before = await world.admin`select datum.fingerprint('features'::regclass)`
  await setup(world)
  expect(await world.admin`select datum.fingerprint('features'::regclass)`).toEqual(before)
})

onServer('several at once all succeed, and the result is one', async () => {
  await using world = await createWorld({ start: false })
  const connections = Array.from({ length: 6 }, () => quietSql(world.adminUrl!))
  await Promise.all(connections.map((sql) => setup(world, sql)))
  for (const sql of connections) await sql.end()
  await world.addServer()
  const { client, view } = await world.watch(alice)
  await world.put({ org: 'a' })
  await client.until(() => view.rows.size === 1, 'live')
  expect(await world.admin`select from pg_trigger where tgname like 'zz_datum_%'`).toHaveLength(4)
})

onServer('triggers that were switched off, dropped or made by another version are put right', async () => {
  await using world = await createWorld({ start: false })
  await setup(world)
  for (const damage of [
    'alter table features disable trigger zz_datum_insert',
    'alter table features enable trigger zz_datum_insert',
    'drop trigger zz_datum_delete on features',
    `comment on trigger zz_datum_update on features is 'another'`,
    'comment on trigger zz_datum_truncate on features is null',
  ]) {
    await world.admin.unsafe(damage)
    await setup(world)
    const [found] = await world.admin`
      select count(*)::int as triggers, count(distinct obj_description(oid))::int as marks from pg_trigger
       where tgrelid = 'features'::regclass and tgname like 'zz_datum_%' and tgenabled = 'A'`
    expect({ damage, found: { ...found } }).toEqual({ damage, found: { triggers: 4, marks: 1 } })
  }
})

onServer(
  'I11: an upgrade while the application writes; tables that it was not told of are upgraded too',
  async () => {
    await using world = await createWorld({ tables: [features(), features({ name: 'notes' })], start: false })
    await setup(world)
    // As version 1 left it.
    await world.admin.unsafe(`
    alter table datum.meta drop column oldest_server, drop column cleared_to, drop column attended_at;
    update datum.meta set version = 1;
    drop function datum.tidy(bigint), datum.prune(interval, interval, integer, boolean);
    do $$ declare f regprocedure; begin
      for f in select distinct tgfoid from pg_trigger where tgname like 'zz_datum_%' loop
        execute replace(pg_get_functiondef(f), 'datum.tidy(logged)', 'datum.ring()');
      end loop; end $$;`)
    const calls = (name: string) => world.admin`
    select from pg_trigger t join pg_proc p on p.oid = t.tgfoid
     where t.tgrelid = ${name}::regclass and p.prosrc like '%datum.tidy(logged)%'`
    expect(await calls('notes')).toHaveLength(0)
    let isDone = false
    const application = quietSql(world.adminUrl!)
    const writing = (async () => {
      while (!isDone)
        await application.unsafe(`${INSERT}; update features set size = 1; delete from features`)
    })()
    const [, ...rest] = world.config.tables
    expect(rest).toHaveLength(1)
    await install(world.admin, { tables: world.config.tables.slice(0, 1), role: APP_ROLE })
    isDone = true
    await writing
    await application.end()
    expect(await calls('features')).toHaveLength(4)
    expect(await calls('notes')).toHaveLength(4)
    expect((await world.admin`select version from datum.meta`)[0]?.version).toBe(SCHEMA_VERSION)
    await world.addServer()
  },
)

onServer(
  'I11: a table that a foreign table inherits from is refused with words, since writes to it could fail',
  async () => {
    await using world = await createWorld({ start: false })
    await world.admin.unsafe(`create extension file_fdw; create server files foreign data wrapper file_fdw;
    create table between () inherits (features);
    create foreign table elsewhere () inherits (between) server files options (filename '/dev/null')`)
    await expect(setup(world)).rejects.toThrow('foreign table (public.elsewhere)')
    await world.admin`drop foreign table elsewhere`
    await setup(world)
  },
)

onServer(
  'what is printed is what is run: nothing is left to do after it, and before it nothing was done',
  async () => {
    await using world = await createWorld({ start: false })
    const options = { tables: world.config.tables, role: APP_ROLE }
    const printed = await installSql(world.admin, options)
    expect(await world.admin`select from pg_namespace where nspname = 'datum'`).toHaveLength(0)
    const connection = await world.admin.reserve()
    await connection.unsafe(printed)
    connection.release()
    expect(await installSql(world.admin, options)).not.toContain('create or replace trigger')
    await world.addServer()
  },
)
