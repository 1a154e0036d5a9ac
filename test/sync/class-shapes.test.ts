/**
 * What the analysis of policies concludes, shape by shape: which claims decide who shares a read of the table, or that it
 * cannot be known (then only principals with the very same payload share). Invariant 2.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import type { Sql } from 'postgres'
import { readTable } from '../../src/db/catalog.ts'
import { createWorld, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'
import { POLICY_CODE, POLICY_TYPES } from '../support/policy-code.ts'
import { features, tableConfig } from '../support/table-spec.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

/** Settings, and members of the payload as `payload.name`; null: not known. */
type Read = string[] | null
const UNKNOWN = null

const setting = (name: string) => `current_setting('datum.${name}', true)`
const payload = `current_setting('request.jwt.claims', true)::jsonb`

/** A USING expression of a policy FOR ALL, and what reads depend on. */
const EXPRESSIONS: Record<string, [expression: string, read: Read]> = {
  // Shared by the claims that are named.
  'a constant': ['true', []],
  'a setting': [`org_id = ${setting('org_id')}`, ['datum.org_id']],
  'a setting that must be there': [`org_id = current_setting('datum.org_id')`, ['datum.org_id']],
  'a setting in other letters': [`org_id = current_setting('DATUM.Org_Id', true)`, ['datum.org_id']],
  'a setting spelled with escapes': [
    `org_id = current_setting(U&'datum.\\006frg_id', true)`,
    ['datum.org_id'],
  ],
  'a setting put together of constants': [
    `org_id = current_setting('datum.' || 'org' || '_id', true)`,
    ['datum.org_id'],
  ],
  'a setting under a quoted name of the function': [
    `org_id = pg_catalog."current_setting"('datum.org_id', true)`,
    ['datum.org_id'],
  ],
  'a setting of somebody else': [`org_id = current_setting('app.org', true)`, ['app.org']],
  'datum.claim': [`org_id = datum.claim('org_id')`, ['datum.org_id']],
  'casts, lists and operators': [
    `org_id in ('x', ${setting('a')}) and size between 1 and coalesce(nullif(${setting('b')}, '')::int, 3) and name like 'a%'`,
    ['datum.a', 'datum.b'],
  ],
  arrays: [
    `name = any (string_to_array(${setting('a')}, ',')) or name = (array[${setting('b')}])[1]`,
    ['datum.a', 'datum.b'],
  ],
  rows: [
    `(name, org_id) = (${setting('a')}, 'x') and row(name, size) < row(datum.claim('b'), 5)`,
    ['datum.a', 'datum.b'],
  ],
  'CASE, IS, COLLATE, AT TIME ZONE': [
    `case when name is null then ${setting('a')} is distinct from 'x' else name collate "C" < datum.claim('b') end
       and now() at time zone 'utc' > '2000-01-01'`,
    ['datum.a', 'datum.b'],
  ],
  'the clock': [
    `now() - interval '1 day' < to_timestamp(${setting('a')}::float8) or current_date > '2000-01-01'`,
    ['datum.a'],
  ],
  'the database role': [`current_user = 'datum_app' and name = ${setting('a')}`, ['datum.a']],
  PostGIS: [`st_within(geom, st_makeenvelope(0, 0, 1, 1, 4326)) and name = ${setting('a')}`, ['datum.a']],
  'PostGIS with a claim': [`geom && st_setsrid(st_geomfromtext(${setting('area')}), 4326)`, ['datum.area']],
  'an enum': [`'a'::temper = ${setting('a')}::temper`, ['datum.a']],
  'a sub-select without FROM': [`org_id = (select ${setting('org_id')})`, ['datum.org_id']],
  'a sub-select of datum.claim': [`org_id = (select datum.claim('org_id'))`, ['datum.org_id']],
  'elements of a claim': [
    `org_id in (select jsonb_array_elements_text(datum.claim('orgs')::jsonb))`,
    ['datum.orgs'],
  ],
  'elements of a claim in FROM': [
    `exists (select from json_array_elements_text(datum.claim('orgs')::json) o where o = org_id)`,
    ['datum.orgs'],
  ],
  'a table of memberships': [
    `org_id in (select m.org_id from members m where m.user_id = ${setting('sub')})`,
    ['datum.sub'],
  ],
  'EXISTS over a table of memberships': [
    `exists (select from members m where m.org_id = features.org_id and m.user_id = datum.claim('sub'))`,
    ['datum.sub'],
  ],
  'a join, groups, unions, a WITH': [
    `org_id in (with mine as (select m.org_id, count(*) as n from members m join members o using (org_id)
                 where m.user_id = ${setting('sub')} group by m.org_id having count(*) > 0 order by m.org_id limit 5)
                select org_id from mine union all select ${setting('a')} union select v from (values ('x')) w(v))`,
    ['datum.a', 'datum.sub'],
  ],
  'a table with policies of its own, for whichever role': [
    `org_id in (select m.org_id from closed_members m where m.user_id = ${setting('a')})`,
    ['datum.a', 'datum.c', 'datum.d'],
  ],
  'names that look like parts of a parse tree': [
    String.raw`exists (select ":x" as "{FUNCEXPR :funcid 1}", "(o 1 2)".":y" as "<>" from (select ${setting('a')}) ":args" (":x"),
      (select org_id as ":y", 1 as "16 [ 1 ]", 2 as "a\b}") "(o 1 2)" where ":x" = features.name)`,
    ['datum.a'],
  ],
  'a function that returns an expression': [`name = returned_a()`, ['datum.a']],
  'a function that is told which claim': [`name = returned_claim('A')`, ['datum.a']],
  'a function through another': [`name = twice_returned('a')`, ['datum.a']],
  'a function with a parsed body that looks into a table': [
    `org_id in (select atomic_orgs(${setting('sub')}))`,
    ['datum.sub'],
  ],
  'a function that looks into a table with policies': [
    `org_id in (select atomic_closed_orgs())`,
    ['datum.a', 'datum.c', 'datum.d'],
  ],
  'a member of the payload': [`org_id = ${payload} ->> 'org_id'`, ['payload.org_id']],
  'a member of the payload, as PostgREST writes it': [
    `org_id = current_setting('request.jwt.claims', true)::json->>'org_id'`,
    ['payload.org_id'],
  ],
  'a member of the payload, as Supabase writes it': [
    `org_id = (select nullif(current_setting('request.jwt.claims', true), '')::jsonb -> 'app' ->> 'org_id')`,
    ['payload.app'],
  ],
  'a member of a sub-select for the payload': [`org_id = ((select ${payload}) ->> 'Org')`, ['payload.Org']],
  'a member of what a function returns': [`org_id = (returned_payload() ->> 'org_id')`, ['payload.org_id']],
  'members and settings': [
    `org_id = (${payload} ->> 'org_id') and name = ${setting('a')}`,
    ['datum.a', 'payload.org_id'],
  ],
  'a column of a domain': [`tag = ${setting('a')}`, ['datum.a']],
  // The whole payload.
  'the payload as a text': [`current_setting('request.jwt.claims', true) like '%a%'`, ['request.jwt.claims']],
  'the payload by path': [`org_id = ${payload} #>> '{org_id}'`, ['request.jwt.claims']],
  'the payload by a key of the row': [`org_id = ${payload} ->> name`, ['request.jwt.claims']],
  'the payload by number': [`org_id = ${payload} ->> 0`, ['request.jwt.claims']],
  'the payload by containment': [`${payload} @> '{"admin": true}'`, ['request.jwt.claims']],
  'the payload by a function': [
    `org_id = jsonb_extract_path_text(${payload}, 'org_id')`,
    ['request.jwt.claims'],
  ],
  'the payload changed before a member is taken': [
    `org_id = (replace(current_setting('request.jwt.claims', true), 'x', 'y')::jsonb ->> 'org_id')`,
    ['request.jwt.claims'],
  ],
  'the payload and something else in one': [
    `org_id = (coalesce(current_setting('request.jwt.claims', true), name)::jsonb ->> 'org_id')`,
    ['request.jwt.claims'],
  ],
  'the payload of a function that a claim can make NULL': [
    `org_id = (strict_payload(${setting('b')}) ->> 'org_id')`,
    ['datum.b', 'request.jwt.claims'],
  ],
  'one member, and all of it': [
    `org_id = (${payload} ->> 'org_id') and ${payload} ? 'a'`,
    ['payload.org_id', 'request.jwt.claims'],
  ],
  // Not known.
  'a setting by a name of the row': [`org_id = current_setting('datum.' || name, true)`, UNKNOWN],
  'a setting by a computed name': [`org_id = current_setting(concat('datum.', 'a'), true)`, UNKNOWN],
  'a setting by a name of other letters than ASCII': [`org_id = current_setting('datum.ü', true)`, UNKNOWN],
  'datum.claim by a name of the row': [`org_id = datum.claim(name)`, UNKNOWN],
  'datum.claim by a named argument': [`org_id = datum.claim(name => 'a')`, UNKNOWN],
  set_config: [`set_config('datum.a', 'b', true) is not null`, UNKNOWN],
  pg_settings: [`name = (select s.setting from pg_settings s where s.name = 'datum.a')`, UNKNOWN],
  'a query in a string': [
    `query_to_xml('select current_setting(''datum.a'')', true, true, '')::text = name`,
    UNKNOWN,
  ],
  'the statement’s text': [`current_query() like name`, UNKNOWN],
  'a random number': [`random() < 0.5`, UNKNOWN],
  'a function in quotes': [`name = quoted_a()`, UNKNOWN],
  'a function in quotes that is called immutable': [`name = quoted_nothing()`, UNKNOWN],
  'a function in PL/pgSQL': [`name = plpgsql_b()`, UNKNOWN],
  'a function that calls one in PL/pgSQL': [`name = calls_plpgsql()`, UNKNOWN],
  'a function with the name of a built-in one': [`name = lower(name, 1)`, UNKNOWN],
  'a default of an argument': [`name = returned_default()`, UNKNOWN],
  'a setting that a function sets': [`name = returned_with_setting()`, UNKNOWN],
  'an operator': [`name =~=~ 1`, UNKNOWN],
  'an aggregate': [`name = (select any_b(m.kind) from members m)`, UNKNOWN],
  'a view': [`org_id in (select v.org_id from membership_view v)`, UNKNOWN],
  'a view of a setting': [`name = (select v.value from setting_view v)`, UNKNOWN],
  'a table whose own policies are not understood': [
    `org_id in (select m.org_id from murky_members m)`,
    UNKNOWN,
  ],
  'a check of a domain, written as a call': [`checked(name) is not null`, UNKNOWN],
  'a check of a domain': [`name::checked is not null`, UNKNOWN],
  'a check of a domain that a function returns': [`returned_checked() = name`, UNKNOWN],
  'a whole row': [`features is not null`, UNKNOWN],
  'a composite of the application': [`(('a', name)::pair).two = 'a'`, UNKNOWN],
  XML: [`xmlserialize(content xmlelement(name a, name) as text) = name`, UNKNOWN],
  'a sample': [`org_id in (select m.org_id from members m tablesample system (50))`, UNKNOWN],
  'a lock': [`org_id in (select m.org_id from members m for share)`, UNKNOWN],
  ST_FindExtent: [`geom && st_findextent('features', 'geom')`, UNKNOWN],
  'a window': [`1 = (select count(*) over () from members m limit 1)`, UNKNOWN],
}

/** Whole policies. */
const POLICIES: Record<string, [sql: string, read: Read]> = {
  'reading by one claim, writing by another': [
    `create policy r on features for select using (org_id = ${setting('org_id')});
     create policy w on features for update using (name = ${setting('sub')}) with check (name = plpgsql_b())`,
    ['datum.org_id'],
  ],
  'a policy for all whose check reads more': [
    `create policy p on features using (org_id = ${setting('org_id')}) with check (name = ${setting('sub')})`,
    ['datum.org_id'],
  ],
  'a restrictive policy': [
    `create policy p on features using (true); create policy r on features as restrictive using (name = ${setting('a')})`,
    ['datum.a'],
  ],
  'a policy for a role that is not the server’s': [
    `create policy p on features to postgres using (name = ${setting('a')})`,
    ['datum.a'],
  ],
  'one of two that is not understood': [
    `create policy p on features using (org_id = ${setting('a')}); create policy q on features using (name = plpgsql_b())`,
    UNKNOWN,
  ],
  'no policy': ['select 1', []],
}

describe('what a policy reads', () => {
  let world: World
  let app: Sql
  const open = async (): Promise<World> => {
    const made = await createWorld({
      before: POLICY_TYPES,
      tables: [
        features({
          columns: ', tag checked',
          policies: `alter table features enable row level security; alter table features force row level security; ${POLICY_CODE}`,
        }),
      ],
    })
    return made
  }
  beforeAll(async () => {
    world = await open()
    app = world.openDatabase().sql
  })
  afterAll(() => world?.close())

  const reads = async (policies: string) => {
    for (const {
      polname,
    } of await world.admin`select polname from pg_policy where polrelid = 'features'::regclass`)
      await world.admin`drop policy ${world.admin(polname)} on features`
    await world.admin.unsafe(policies)
    const table = await readTable(app, tableConfig(features()))
    return table.policyReads
  }
  const flat = ({ reading }: Awaited<ReturnType<typeof reads>>): Read =>
    reading && [...reading.settings, ...[...reading.payloadKeys].map((key) => `payload.${key}`)].sort()

  for (const [shape, [expression, read]] of Object.entries(EXPRESSIONS))
    test(`I2: ${shape}: ${read === null ? 'not known' : read.join(', ') || 'no claim'}`, async () => {
      expect(flat(await reads(`create policy p on features using (${expression})`))).toEqual(read)
    })

  for (const [shape, [policies, read]] of Object.entries(POLICIES))
    test(`I2: ${shape}: ${read === null ? 'not known' : read.join(', ') || 'no claim'}`, async () => {
      expect(flat(await reads(policies))).toEqual(read)
    })

  test('I2: a plan is kept only where planning under one principal cannot show in what another reads', async () => {
    await world.admin.unsafe(`
      create or replace function called_immutable() returns text language plpgsql immutable as
        $$ begin return current_setting('datum.b', true); end $$;
      create or replace function returned_immutable() returns text language sql immutable return current_setting('datum.b', true);
      create or replace function calls_immutable() returns text language sql stable return called_immutable()`)
    const holds = async (expression: string) =>
      (await reads(`create policy p on features using (${expression})`)).plansHold
    for (const expression of [
      `org_id = ${setting('a')}`,
      `org_id = datum.claim('a') and st_isvalid(geom)`,
      `org_id in (select m.org_id from members m where m.user_id = returned_a())`,
      `name = plpgsql_b()`,
      `org_id = ${payload} ->> name`,
    ])
      expect({ expression, holds: await holds(expression) }).toEqual({ expression, holds: true })
    for (const expression of [
      'name = called_immutable()',
      'name = returned_immutable()',
      'name = calls_immutable()',
      'name = quoted_a()',
      'name = lower(name, 1)',
      'name in (select v.value from setting_view v)',
    ])
      expect({ expression, holds: await holds(expression) }).toEqual({ expression, holds: false })
  })

  test('I5: whether rows come into view only with a change of theirs', async () => {
    const alone = async (expression: string) =>
      (await reads(`create policy p on features using (${expression})`)).rowAlone
    for (const expression of [
      'true',
      `org_id = ${setting('a')}`,
      `size = (select datum.claim('a'))::int and st_isvalid(geom)`,
      `org_id in (select jsonb_array_elements_text(datum.claim('orgs')::jsonb))`,
      `org_id = ${payload} ->> 'org_id' and name = returned_a()`,
    ])
      expect({ expression, alone: await alone(expression) }).toEqual({ expression, alone: true })
    for (const expression of [
      `org_id in (select m.org_id from members m)`,
      `org_id in (select atomic_orgs('a'))`,
      `now() > '2000-01-01'`,
      `current_date > '2000-01-01'`,
      `current_user = name`,
      `(${setting('a')})::timestamptz > '2000-01-01'`,
      `name::date = '2000-01-01'`,
      `name = quoted_a()`,
    ])
      expect({ expression, alone: await alone(expression) }).toEqual({ expression, alone: false })
  })

  test('names every setting that a policy for writing or an unknown function is given, for its absence', async () => {
    const { settings } = await reads(
      `create policy p on features using (coalesce(plpgsql_b(), ${setting('A')}) = quoted_a()) with check (name = datum.claim('c'))`,
    )
    expect([...settings].sort()).toEqual(['datum.a', 'datum.c'])
  })
})
