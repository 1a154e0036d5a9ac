/** `setup --uninstall`: datum is gone, and all that is the application's is as it was. Invariant 11. */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { install } from '../../src/db/install.ts'
import { uninstall, uninstallSql } from '../../src/db/uninstall.ts'
import { OperatorError } from '../../src/operator-error.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'
import { APP_ROLE, quietSql } from '../support/postgres.ts'
import { features } from '../support/table-spec.ts'

/** The embedded database is datum's own and is not shared with an application. */
const onServer = describe.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(2 * TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const setup = (world: World) => install(world.admin, { tables: world.config.tables, role: APP_ROLE })

/** Everything in the database that datum might have touched, outside of its own schema. */
const catalogOf = (world: World) => world.admin`
  select c.oid::regclass::text as relation, c.relacl::text, c.relrowsecurity, c.relforcerowsecurity, c.options, p.policies, t.triggers
    from (select oid, relacl, relrowsecurity, relforcerowsecurity, reloptions as options
            from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')) c,
         lateral (select json_agg(json_build_array(polname, polcmd, pg_get_expr(polqual, polrelid)) order by polname) as policies
                    from pg_policy where polrelid = c.oid) p,
         lateral (select json_agg(tgname order by tgname) as triggers from pg_trigger where tgrelid = c.oid) t
   order by 1`

const refusal = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'not refused',
    (error: unknown) => {
      if (!(error instanceof OperatorError)) throw error
      return error.message
    },
  )

onServer('uninstall', () => {
  test('I11: leaves nothing of datum and everything of the application; setup brings it back', async () => {
    const partitioned = `create table parts (id uuid not null, org_id text, geom geometry(Point, 4326)) partition by hash (id);
      create table parts_0 partition of parts for values with (modulus 1, remainder 0); create unique index on parts (id)`
    await using world = await createWorld({
      tables: [
        features({ columns: ', doubled integer generated always as (size * 2) stored' }),
        { name: 'parts', geometryColumn: 'geom', sql: partitioned, policies: '' },
      ],
      before: `create function own() returns trigger language plpgsql as $$ begin return null; end $$`,
      start: false,
    })
    await world.admin.unsafe(
      'create trigger zz_of_the_application after insert on features for each row execute function own()',
    )
    const before = await catalogOf(world)
    await setup(world)
    expect(await catalogOf(world)).not.toEqual(before)
    await world.put({ org: 'a' })
    await uninstall(world.admin)
    expect(await catalogOf(world)).toEqual(before)
    expect(await world.admin`select from pg_namespace where nspname = 'datum'`).toHaveLength(0)
    await world.admin`update features set size = 2`
    expect(await refusal(uninstall(world.admin))).toContain('nothing to uninstall')
    await setup(world)
    await world.addServer()
    const { client, view } = await world.watch(alice)
    const id = await world.put({ org: 'a' })
    await client.until(() => view.rows.has(id), 'live again')
  })

  test('I11: refuses while policies or functions use datum.claim(), names them, and changes nothing', async () => {
    await using world = await createWorld({ start: false })
    await setup(world)
    const users: readonly [make: string, named: string, drop: string][] = [
      [
        `create policy "by claim" on features using (org_id = datum.claim('org_id'))`,
        'the policy "by claim" on public.features',
        'drop policy "by claim" on features',
      ],
      [
        `create function my_org() returns text language sql return datum.claim('org_id')`,
        'function public.my_org()',
        'drop function my_org()',
      ],
      [
        `create function my_old_org() returns text language plpgsql as $$ begin return datum.claim('org_id'); end $$`,
        'the function public.my_old_org()',
        'drop function my_old_org()',
      ],
      [
        `create view mine as select * from features where org_id = datum.claim('org_id')`,
        'view public.mine',
        'drop view mine',
      ],
      [
        `alter table features add column made_by text default datum.claim('sub')`,
        'column made_by of table public.features',
        'alter table features drop column made_by',
      ],
    ]
    for (const [make, named, drop] of users) {
      await world.admin.unsafe(make)
      const before = await catalogOf(world)
      const words = await refusal(uninstall(world.admin))
      expect(words).toContain(named)
      expect(words).toContain('nullif(current_setting(')
      expect(await catalogOf(world)).toEqual(before)
      await world.admin.unsafe(drop)
    }
    await world.admin`create table datum.of_the_application (a integer)`
    await world.admin`create view on_it as select * from datum.of_the_application`
    expect(await refusal(uninstall(world.admin))).toContain('on_it')
    await world.admin`drop view on_it`
    await world.admin`create type datum.own as enum ('a')`
    expect(await refusal(uninstall(world.admin))).toContain('not part of datum')
    await world.admin`drop type datum.own`
    await uninstall(world.admin)
  })

  test('I11: what is printed is what is run, and printing changes nothing', async () => {
    await using world = await createWorld({ start: false })
    await setup(world)
    const before = await catalogOf(world)
    const printed = await uninstallSql(world.admin)
    expect(await catalogOf(world)).toEqual(before)
    expect(printed).toContain('lock_timeout')
    expect(printed).not.toContain('cascade')
    const connection = await world.admin.reserve()
    await connection.unsafe(printed)
    connection.release()
    expect(await refusal(uninstall(world.admin))).toContain('nothing to uninstall')
  })

  test('I11: while the application writes, and behind its long transactions, no write fails or waits for long', async () => {
    await using world = await createWorld({ start: false })
    await setup(world)
    const writers = Array.from({ length: 3 }, () => quietSql(world.adminUrl!))
    let isDone = false
    const writing = writers.map(async (sql) => {
      while (!isDone) {
        await sql.begin(async (transaction) => {
          await transaction`set local lock_timeout = '3s'`
          await transaction`insert into features (org_id, name) values ('a', 'x')`
          await Bun.sleep(20)
          await transaction`update features set size = 1 where name = 'none'`
        })
      }
    })
    await uninstall(world.admin).finally(() => {
      isDone = true
    })
    await Promise.all(writing)
    for (const sql of writers) await sql.end()
    expect(await world.admin`select from pg_namespace where nspname = 'datum'`).toHaveLength(0)
  })

  test('a server that is running says so and asks to be stopped', async () => {
    await using world = await createWorld()
    const { client } = await world.watch(alice)
    await uninstall(world.admin)
    await world.put({ org: 'a' })
    const reason = await world.server.unfit
    expect(reason.message).toContain('not installed')
    await world.server.stop()
    expect((await client.untilClosed()).code).toBe(1012)
  })
})
