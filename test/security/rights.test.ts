/** Who may do what with what `setup` installs: the bounds of a compromised server role, and of every other role. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { createWorld, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

interface InstalledFunction {
  readonly name: string
  readonly definer: boolean
  readonly config: string[] | null
  readonly everybody: boolean
  readonly server: boolean
}

const functionsOf = (world: World) => world.admin<InstalledFunction[]>`
  select p.proname::text as name, p.prosecdef as definer, to_json(p.proconfig) as config,
         has_function_privilege('nobody_of_the_tests', p.oid, 'execute') as everybody,
         has_function_privilege('datum_app', p.oid, 'execute') as server
    from pg_proc p where p.pronamespace = 'datum'::regnamespace`

const NOBODY = `do $$ begin create role nobody_of_the_tests nologin; exception when duplicate_object then null; end $$;`

test('other roles may call datum.claim and datum.to_wgs84 only, and read no table of datum', async () => {
  await using world = await createWorld({ before: NOBODY })
  const functions = await functionsOf(world)
  expect(functions.length).toBeGreaterThan(8)
  const open = functions.filter(({ everybody }) => everybody).map(({ name }) => name)
  expect(open.sort()).toEqual(['claim', 'to_wgs84'])
  const tables = await world.admin`
    select c.relname from pg_class c
     where c.relnamespace = 'datum'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S')
       and has_table_privilege('nobody_of_the_tests', c.oid, 'select, insert, update, delete, truncate, trigger')`
  expect([...tables]).toEqual([])
  const [schema] = await world.admin`
    select has_schema_privilege('nobody_of_the_tests', 'datum', 'create') as nobody,
           has_schema_privilege('datum_app', 'datum', 'create') as server`
  expect(schema).toEqual({ nobody: false, server: false })
})

test('functions that run as somebody else look names up in pg_catalog, and in no schema of the caller before it', async () => {
  await using world = await createWorld({ before: NOBODY })
  const definers = (await functionsOf(world)).filter(({ definer }) => definer)
  expect(definers.map(({ name }) => name)).toContain('candidates')
  for (const { name, config } of definers)
    expect({ name, config }).toEqual({ name, config: ['search_path=pg_catalog, pg_temp'] })
})

test('the server’s role may write nothing of datum’s by itself, nor be given a table', async () => {
  await using world = await createWorld({ before: NOBODY })
  const writable = await world.admin`
    select c.relname from pg_class c
     where c.relnamespace = 'datum'::regnamespace and c.relkind in ('r', 'p')
       and has_table_privilege('datum_app', c.oid, 'insert, update, delete, truncate, trigger, references')`
  expect([...writable]).toEqual([])
  const readable = await world.admin<{ relname: string }[]>`
    select c.relname from pg_class c
     where c.relnamespace = 'datum'::regnamespace and c.relkind in ('r', 'p') and has_table_privilege('datum_app', c.oid, 'select')`
  // What was edited by whom is in datum.batch: it is asked for one batch at a time.
  expect(readable.map(({ relname }) => relname)).not.toContain('batch')
  const asServer = async (statement: string) => {
    try {
      await world.admin.begin(async (transaction) => {
        await transaction.unsafe('set local role datum_app')
        await transaction.unsafe(statement)
      })
      return 'done'
    } catch (error) {
      return (error as { code?: string }).code
    }
  }
  // Not even by the triggers: their functions take no call.
  const [log] = await world.admin<{ name: string }[]>`
    select p.oid::regproc::text as name from pg_proc p
     where p.pronamespace = 'datum'::regnamespace and p.prorettype = 'trigger'::regtype`
  for (const statement of [
    `insert into datum.watched values ('pg_authid', 'oid', null)`,
    `delete from datum.change`,
    `update datum.meta set version = 0`,
    `create table datum.mine ()`,
    `create or replace function datum.claim(name text) returns text language sql return 'x'`,
    `select ${log?.name}()`,
    `create table copies (id int); create trigger t after insert on copies for each statement execute function ${log?.name}()`,
    'alter function datum.candidates owner to datum_app',
  ])
    expect({ statement, code: await asServer(statement) }).not.toEqual({ statement, code: 'done' })
})
