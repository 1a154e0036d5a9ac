/** What was concluded of policies is forgotten when code that they reach changes, while sockets are open. Invariant 2. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const rls = `alter table features enable row level security; alter table features force row level security;`
const HELPERS = `
  drop table if exists teams cascade;
  drop function if exists my_team, org_of_mine, my_masking cascade;
  create table teams (name text, org_id text);
  insert into teams values ('red', 'a'), ('blue', 'a');
  grant select on teams to datum_app;
  create function my_team() returns text language sql stable return current_setting('datum.team', true);
  create function org_of_mine() returns text language sql stable return current_setting('datum.org_id', true);`

/** Each is understood at first and lets through everything of organisation a; then something behind it changes. */
const CHANGES: Record<string, { policy: string; change: string }> = {
  'a function that the policy calls': {
    policy: `org_id = org_of_mine()`,
    change: `create or replace function org_of_mine() returns text language sql stable
      return case when my_team() = 'red' then 'a' end`,
  },
  'a function behind such a function': {
    policy: `org_id = (select org_of_mine()) and coalesce(my_team(), '') is not null`,
    change: `create or replace function my_team() returns text language plpgsql stable as
      $$ begin return nullif(current_setting('datum.team', true), 'blue'); end $$;
      create or replace function org_of_mine() returns text language sql stable return case when my_team() is not null then 'a' end`,
  },
  'datum.claim itself': {
    policy: `org_id = datum.claim('org_id')`,
    change: `create or replace function datum.claim(name text) returns text language sql stable parallel safe
      return case when current_setting('datum.team', true) = 'red' then nullif(current_setting('datum.' || name, true), '') end`,
  },
  'row security of a table that the policy looks into': {
    policy: `org_id in (select t.org_id from teams t where current_setting('datum.org_id', true) = t.org_id and t.name = 'red')`,
    change: `alter table teams enable row level security;
      create policy of_team on teams using (name = current_setting('datum.team', true))`,
  },
}

for (const [what, { policy, change }] of Object.entries(CHANGES))
  test(`I2: ${what} changes: from then on what it reads tells users apart`, async () => {
    await using world = await createWorld({
      before: HELPERS,
      tables: [features({ policies: `${rls} create policy p on features using (${policy})` })],
    })
    await world.put({ name: 'before' })
    const [red, blue] = await Promise.all(
      ['red', 'blue'].map((team) => world.watch({ sub: team, org_id: 'a', team })),
    )
    expect([red!.view.rows.size, blue!.view.rows.size]).toEqual([1, 1])
    await world.admin.unsafe(change)
    // Whatever of this reached blue would have been read for red.
    await world.put({ name: 'after' })
    await red!.client.until(() => red!.view.rows.size === 2, 'red has the new row')
    await blue!.client.until(() => blue!.view.rows.size === 0, 'blue has nothing any more')
    expect(JSON.stringify(blue!.client.frames)).not.toContain('after')
  })

test('I2: a cast that is made later, by which a column’s text depends on a claim', async () => {
  await using world = await createWorld({
    before: `${HELPERS} drop type if exists masked_later cascade; create type masked_later as (v text);`,
    tables: [
      features({
        columns: `, phone masked_later[]`,
        policies: `${rls} create policy p on features using (org_id = org_of_mine())`,
      }),
    ],
  })
  await world.admin`insert into features (org_id, name, phone, geom)
    values ('a', 'x', array[row('secret')::masked_later], st_setsrid(st_makepoint(8.5, 47.5), 4326))`
  const [red, blue] = await Promise.all(
    ['red', 'blue'].map((team) => world.watch({ sub: team, org_id: 'a', team })),
  )
  await world.admin.unsafe(`
    create function my_masking(m masked_later) returns text language plpgsql stable as
      $$ begin return case when current_setting('datum.team', true) = 'red' then (m).v else '***' end; end $$;
    create cast (masked_later as text) with function my_masking(masked_later);
    update features set size = 7`)
  for (const [{ client, view }, phone] of [
    [red!, '["secret"]'],
    [blue!, '["***"]'],
  ] as const)
    await client.until(
      () => [...view.rows.values()].every((row) => row.size === 7 && JSON.stringify(row.phone) === phone),
      `the phone reads ${phone}`,
    )
})

test('I2: a type of the application within a column’s type: its casts tell users apart as its own would', async () => {
  await using world = await createWorld({
    before: `${HELPERS}
      drop domain if exists masked_domain cascade; drop type if exists masked_inner cascade; create type masked_inner as (v text);
      create function my_masking(m masked_inner) returns text language plpgsql stable as
        $$ begin return case when current_setting('datum.team', true) = 'red' then (m).v else '***' end; end $$;
      create cast (masked_inner as text) with function my_masking(masked_inner);
      create domain masked_domain as masked_inner`,
    // No row security: what a row looks like depends on the claims all the same.
    tables: [features({ columns: ', phones masked_domain[]', policies: '' })],
  })
  await world.put({ name: 'x' })
  const [red, blue] = await Promise.all(
    ['red', 'blue'].map((team) => world.watch({ sub: team, org_id: 'a', team })),
  )
  await world.admin`update features set size = 7, phones = array[row('secret')::masked_inner::masked_domain]`
  await red!.client.until(() => [...red!.view.rows.values()].every(({ size }) => size === 7), 'red')
  await blue!.client.until(() => [...blue!.view.rows.values()].every(({ size }) => size === 7), 'blue')
  expect([...red!.view.rows.values()].map(({ phones }) => phones)).toEqual([['secret']])
  expect([...blue!.view.rows.values()].map(({ phones }) => phones)).toEqual([['***']])
})

test('I2: a function that reads a claim and is called IMMUTABLE by mistake', async () => {
  await using world = await createWorld({
    before: `${HELPERS} create or replace function mistaken_org() returns text language plpgsql immutable as
      $$ begin return current_setting('datum.org_id', true); end $$;`,
    tables: [features({ policies: `${rls} create policy p on features using (org_id = mistaken_org())` })],
  })
  // More than the five plans that Postgres makes before it keeps one (Postgres, PREPARE, notes).
  const orgs = Array.from({ length: 12 }, (_, n) => `org${n}`)
  for (const org of orgs) await world.put({ org, name: org })
  const watchers = await Promise.all(
    orgs.map(async (org) => ({
      ...(await world.watch({ sub: org, org_id: org }, { allowed: (row) => row.org_id === org })),
      org,
    })),
  )
  for (const size of [7, 8, 9]) {
    await world.admin`update features set size = ${size}`
    for (const { client, view, org } of watchers)
      await client.until(
        () => [...view.rows.values()].every((row) => row.size === size && row.org_id === org),
        `${org} has its own row`,
      )
  }
  for (const { view, client } of watchers) {
    expect(view.rows.size).toBe(1)
    expect(client.violations).toEqual([])
  }
})
