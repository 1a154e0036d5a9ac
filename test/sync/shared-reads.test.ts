/**
 * Users that policies cannot tell apart share one read of the database. Here policies tell them apart in roundabout
 * ways, and nobody may get what another one's claims allow. Invariant 2.
 */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'
import { mintToken } from '../support/token.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const BEFORE = `
  create or replace function my_team() returns text language plpgsql stable as
    $$ begin return current_setting('datum.' || 'te' || 'am', true); end $$;
  create or replace function via_my_team() returns text language sql stable return my_team();
  create or replace function is_mine(value text) returns boolean language plpgsql stable as
    $$ begin return value = my_team(); end $$;
  create or replace function starts_with(a text) returns boolean language plpgsql stable as
    $$ begin return a = my_team(); end $$;
  create or replace function team_equal(a text, b integer) returns boolean language plpgsql stable as
    $$ begin return a = my_team() and b = 1; end $$;
  do $$ begin
    create operator ~=~# (leftarg = text, rightarg = integer, function = team_equal);
  exception when duplicate_function then null; end $$;
  drop table if exists team_org cascade;
  create table team_org (org_id text, team text);
  insert into team_org values ('a', 'red'), ('a', 'blue');
  grant select on team_org to datum_app;
  alter table team_org enable row level security;
  create policy of_team on team_org using (team = my_team());
  create or replace view my_teams with (security_invoker = true) as select team from team_org;
  grant select on my_teams to datum_app;`

/** Each lets through the rows whose `name` is the token's `team`, of organisation a. */
const ROUNDABOUT: Record<string, string> = {
  'a plain setting': `name = current_setting('datum.team', true)`,
  'another spelling of the setting': `name = current_setting('Datum.TEAM', true)`,
  'datum.claim': `name = datum.claim('team')`,
  'datum.claim of an upper-case name': `name = datum.claim('TEAM')`,
  'a name put together': `name = current_setting('datum.' || 'team', true)`,
  'a name from the row': `name = current_setting('datum.' || case when org_id = 'a' then 'team' else 'x' end, true)`,
  'datum.claim of a name put together': `name = datum.claim('te' || 'am')`,
  'the whole payload': `name = current_setting('request.jwt.claims', true)::jsonb ->> 'team'`,
  'a part of the payload by path': `name = (current_setting('request.jwt.claims', true)::jsonb #>> array['team'])`,
  'a function': `name = my_team()`,
  'a function that calls one': `name = via_my_team()`,
  'a function of the row': `is_mine(name)`,
  'a function with the name of a built-in one': `public.starts_with(name)`,
  'an operator': `name ~=~# 1`,
  'a subquery': `exists (select from team_org t where t.team = features.name)`,
  'a subquery without columns': `name in (table my_teams)`,
  pg_settings: `name = (select setting from pg_settings where name = 'datum.team' union all select my_team() limit 1)`,
  'two policies': `false); create policy second on features using (name = current_setting('datum.team', true)`,
  'a restrictive policy': `true); create policy second on features as restrictive using (name = my_team()`,
}

describe('users of one organisation and two teams', () => {
  for (const [how, expression] of Object.entries(ROUNDABOUT))
    test(`I2: told apart by ${how}`, async () => {
      await using world = await createWorld({
        before: BEFORE,
        tables: [
          features({
            policies: `alter table features enable row level security; alter table features force row level security;
              create policy first on features using (${expression})`,
          }),
        ],
      })
      const teams = ['red', 'blue', 'none'] as const
      for (const name of ['red', 'blue']) await world.put({ name })
      const watchers = await Promise.all(
        teams.map(async (team) => {
          const claims = { sub: `in ${team}`, org_id: 'a', team }
          const watcher = await world.watch(claims, { allowed: (row) => row.name === team })
          return { ...watcher, claims, team }
        }),
      )
      for (const { view, team } of watchers)
        expect([...view.rows.values()].map((row) => row.name)).toEqual(team === 'none' ? [] : [team])
      // Both rows in one batch, so that one statement reads for everybody.
      await world.admin`update features set size = 7`
      await Promise.all(
        watchers.map(({ client, view }) =>
          client.until(() => [...view.rows.values()].every((row) => row.size === 7), 'the change is there'),
        ),
      )
      // A swap of the team alone must be noticed.
      const [{ client, view }] = watchers as [(typeof watchers)[0]]
      await client.authenticate(
        await mintToken({ sub: 'in red', org_id: 'a', team: 'blue' }),
        (row) => row.name === 'blue',
      )
      await client.until(
        () => [...view.rows.values()].map((row) => row.name).join() === 'blue',
        'the other team’s row',
      )
      await world.admin`update features set size = 8`
      await client.until(
        () => [...view.rows.values()].every((row) => row.size === 8),
        'live under the new claims',
      )
      for (const watcher of watchers) expect(watcher.client.violations).toEqual([])
    })
})

test('I2: a policy made later that reads another claim is noticed', async () => {
  await using world = await createWorld()
  await world.put({ org: 'a', name: 'red' })
  await world.put({ org: 'a', name: 'blue' })
  const [red, blue] = await Promise.all(
    ['red', 'blue'].map((team) => world.watch({ sub: team, org_id: 'a', team })),
  )
  expect(red!.view.rows.size + blue!.view.rows.size).toBe(4)
  await world.admin.unsafe(`
    create policy teams on features as restrictive using (name = current_setting('datum.team', true));
    update features set size = 1`)
  for (const [watcher, team] of [
    [red!, 'red'],
    [blue!, 'blue'],
  ] as const)
    await watcher.client.until(() => {
      const names = [...watcher.view.rows.values()].filter((row) => row.size === 1).map((row) => row.name)
      expect(names.filter((name) => name !== team)).toEqual([])
      return names.length === 1 && watcher.view.rows.size === 1
    }, `only ${team} is left`)
})

test('I2: a claim that one has and the next one lacks, read in one statement', async () => {
  await using world = await createWorld({
    before: BEFORE,
    tables: [
      features({
        policies: `alter table features enable row level security; alter table features force row level security;
          create policy teams on features using (name = my_team() or name = 'all')`,
      }),
    ],
  })
  // In this order, which is the order in which the statement reads for them, as both have as many claims.
  const red = await world.watch({ sub: 'red', team: 'red' })
  const none = await world.watch({ sub: 'none', group: 'red' }, { allowed: (row) => row.name === 'all' })
  const [team, all] = [await world.put({ name: 'red' }), await world.put({ name: 'all' })]
  await red.client.until(() => red.view.rows.size === 2, 'both rows')
  await none.client.until(() => none.view.rows.size === 1, 'its row')
  await world.admin`update features set size = 1 where id in (${team}, ${all})`
  const isChanged = () => none.view.rows.get(all)?.size === 1
  await none.client.until(isChanged, 'the change')
  expect([...none.view.rows.keys()]).toEqual([all])
})

test('I2: a shared read for classes of the policies of before is not sent under those of after', async () => {
  await using world = await createWorld()
  const limited = { sub: 'u', org_id: 'a', limits: 'low' }
  const isLow = (row: { readonly name?: unknown }) => row.name === 'low'
  const { client, view } = await world.watch(limited, { allowed: isLow })
  // To a read that sets only what the policy of before asks for, everybody is without limits.
  await world.admin.unsafe(`
    create policy limits on features as restrictive using (
      coalesce(nullif(current_setting('datum.limits', true), ''), name) = name);
    insert into features (org_id, name, geom)
      select 'a', name, st_setsrid(st_makepoint(8.5, 47.5), 4326) from unnest(array['low', 'high']) name`)
  await client.until(() => view.rows.size > 0, 'the row within the limits')
  await world.untilTrue(client, view, limited)
  expect([...view.rows.values()].map((row) => row.name)).toEqual(['low'])
})

test('I2: a table without row security is everybody’s, and so it stays', async () => {
  await using world = await createWorld({ tables: [features({ policies: '' })] })
  await world.put({ org: 'a' })
  await world.put({ org: 'b' })
  const { client, view } = await world.watch({ sub: 'u', org_id: 'a' })
  expect(view.rows.size).toBe(2)
  await world.admin.unsafe(features().policies)
  await world.admin`update features set size = 1`
  await client.until(() => view.rows.size === 1, 'row security was switched on')
  expect([...view.rows.values()].map((row) => row.org_id)).toEqual(['a'])
})

test('I2: told apart by a function that is called IMMUTABLE and reads a claim, however often it was planned', async () => {
  // Postgres evaluates such a function while it plans: a plan that is kept would show everybody what the first one saw.
  await using world = await createWorld({
    before: `create or replace function frozen_team() returns text language sql immutable as
      $$ select current_setting('datum.team', true) $$`,
    tables: [
      features({
        policies: `alter table features enable row level security; alter table features force row level security;
          create policy first on features using (name = frozen_team())`,
      }),
    ],
  })
  const teams = ['red', 'blue', 'green'] as const
  for (const name of teams) await world.put({ name })
  const watchers = await Promise.all(
    teams.map((team) =>
      world.watch({ sub: team, org_id: 'a', team }, { allowed: (row) => row.name === team }),
    ),
  )
  // From the sixth time on Postgres may keep a plan (Postgres, PREPARE, notes).
  for (let size = 1; size <= 12; size++) {
    await world.admin`update features set size = ${size}`
    for (const { client, view } of watchers)
      await client.until(() => [...view.rows.values()].every((row) => row.size === size), `change ${size}`)
  }
  for (const { view } of watchers) expect(view.rows.size).toBe(1)
})
