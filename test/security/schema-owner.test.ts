/** Somebody made a schema `datum` before `setup` did, or owns a part of it: neither setup nor a server runs their code. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import postgres, { type Sql } from 'postgres'
import { checkDatabase } from '../../src/db/check.ts'
import { install } from '../../src/db/install.ts'
import { uninstall } from '../../src/db/uninstall.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'
import { APP_ROLE } from '../support/postgres.ts'

/** The embedded database has nobody in it but its owner and the server's role. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(TEST_TIMEOUT_MS)

const setup = (world: World, sql: Sql = world.admin) =>
  install(sql, { tables: world.config.tables, role: APP_ROLE })

const refusal = (work: Promise<unknown>) =>
  work.then(
    () => 'not refused',
    (error: Error) => error.message,
  )

/** A login role of this world that may create schemas, with a connection; dropped at the end. */
async function stranger(world: World) {
  const role = `stranger_${process.pid}`
  const [database] = await world.admin<{ name: string }[]>`select quote_ident(current_database()) as name`
  await world.admin.unsafe(
    `create role ${role} login password 'of a test'; grant create on database ${database?.name} to ${role}`,
  )
  const url = new URL(world.adminUrl ?? '')
  url.username = role
  url.password = 'of a test'
  const sql = postgres(url.href, { max: 1, onnotice: () => {} })
  return {
    role,
    sql,
    async [Symbol.asyncDispose]() {
      await sql.end()
      await world.admin.unsafe(`drop owned by ${role} cascade; drop role ${role}`)
    },
  }
}

/** Notes down whoever looks at datum.meta. */
const TRAP = `
  create schema datum;
  grant usage on schema datum to public;
  create table datum.loot (who text);
  grant insert on datum.loot to public;
  create function datum.trap() returns integer language plpgsql volatile as
    $$ begin insert into datum.loot values (current_user); return 2; end $$;
  create view datum.meta as select datum.trap() as version, 1 as oldest_server;
  create table datum.change (); create table datum.watched (rel oid, id_column name, geometry_column name);
  grant select on all tables in schema datum to public;
  create function datum.read_as(text[], text[], text[], integer[], integer[], bigint, text, oid) returns void language sql as 'select'`

onServer(
  'setup does not build on a schema `datum` that somebody made before, nor looks into it',
  async () => {
    await using world = await createWorld({ start: false })
    await using other = await stranger(world)
    await other.sql.unsafe(TRAP)
    const words = await refusal(setup(world))
    expect(words).toContain(`belongs to ${other.role}`)
    expect(words).toContain('superuser remove')
    expect([...(await other.sql`select who from datum.loot`)]).toEqual([])
    await uninstall(world.admin).catch(() => world.admin`drop schema datum cascade`)
    await setup(world)
    await world.addServer()
  },
)

onServer('a server does not use one either, and check says so', async () => {
  await using world = await createWorld({ start: false })
  await using other = await stranger(world)
  await other.sql.unsafe(TRAP)
  expect(await refusal(world.addServer())).toContain(`belongs to ${other.role}`)
  const database = world.openDatabase()
  const findings = await checkDatabase(database, world.config)
  expect(findings.map(({ problem }) => problem).join()).toContain(`belongs to ${other.role}`)
  expect([...(await other.sql`select who from datum.loot`)]).toEqual([])
})

onServer('setup does not build on parts that belong to somebody else in a schema of its own', async () => {
  await using world = await createWorld({ start: false })
  await using other = await stranger(world)
  await setup(world)
  const { role } = other
  for (const [damage, repair] of [
    [
      `alter function datum.claim(text) owner to ${role}`,
      'alter function datum.claim(text) owner to current_user',
    ],
    [`alter table datum.meta owner to ${role}`, 'alter table datum.meta owner to current_user'],
    [`alter schema datum owner to ${role}`, 'alter schema datum owner to current_user'],
    [`grant create on schema datum to ${role}`, `revoke create on schema datum from ${role}`],
    ['grant create on schema datum to public', 'revoke create on schema datum from public'],
    [`create type datum.kind as enum ('a'); alter type datum.kind owner to ${role}`, 'drop type datum.kind'],
  ] as const) {
    await world.admin.unsafe(damage)
    expect({ damage, words: await refusal(setup(world)) }).not.toEqual({ damage, words: 'not refused' })
    await world.admin.unsafe(repair)
    await setup(world)
  }
})

onServer(
  'who owns the tables sets up and serves; a superuser is told to leave it to them or to begin anew',
  async () => {
    await using world = await createWorld({ start: false })
    await using owner = await stranger(world)
    await world.admin.unsafe(
      `grant create, usage on schema public to ${owner.role}; alter table features owner to ${owner.role}`,
    )
    await setup(world, owner.sql)
    await setup(world, owner.sql)
    expect(await refusal(setup(world))).toContain(`run setup as ${owner.role} again`)
    await world.addServer()
    await uninstall(world.admin)
    await setup(world)
    const [candidates] = await world.admin`
    select pg_get_userbyid(proowner) as owner from pg_proc where pronamespace = 'datum'::regnamespace and proname = 'candidates'`
    expect(candidates).toEqual({ owner: 'datum_index' })
  },
)

onServer('setup does not leave a schema in which default privileges let others create', async () => {
  await using world = await createWorld({ start: false })
  await using other = await stranger(world)
  await world.admin.unsafe(`alter default privileges grant create on schemas to ${other.role}`)
  expect(await refusal(setup(world))).toContain(`${other.role} may create objects in the schema`)
  await world.admin.unsafe(`alter default privileges revoke create on schemas from ${other.role}`)
  await setup(world)
})
