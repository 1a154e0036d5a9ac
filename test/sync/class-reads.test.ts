/** That users whom policies cannot tell apart do share a read: what the analysis concludes is what the database is asked. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { readForClasses } from '../../src/db/as-principal.ts'
import { readTable } from '../../src/db/catalog.ts'
import { createWorld, onlyOrg, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const MEMBERS = `
  drop table if exists teams cascade;
  create table teams (org_id text, region text);
  insert into teams values ('a', 'r'), ('b', 'r'), ('a', 's');
  grant select on teams to datum_app;`

/** Policies by which users of one organisation see the same, however they differ otherwise. */
const SHARED: Record<string, string> = {
  'a setting': `org_id = current_setting('datum.org_id', true)`,
  'the idiom of a sub-select': `org_id = (select datum.claim('org_id'))`,
  'a member of the payload': `org_id = (current_setting('request.jwt.claims', true)::jsonb ->> 'org_id')`,
  'a table of memberships': `org_id in (select t.org_id from teams t where t.org_id = datum.claim('org_id'))`,
  'a check that reads more': `org_id = datum.claim('org_id')) with check (name = datum.claim('sub')`,
}

async function classReads(world: World): Promise<number> {
  const text = await (await fetch(`${world.server.url}/metrics`)).text()
  return Number(/^datum_class_reads_total (\d+)/m.exec(text)?.[1])
}

for (const [shape, expression] of Object.entries(SHARED))
  test(`I2: ${shape}: eight users of two organisations are two reads`, async () => {
    await using world = await createWorld({
      before: MEMBERS,
      tables: [
        features({
          policies: `alter table features enable row level security; alter table features force row level security;
            create policy p on features using (${expression})`,
        }),
      ],
    })
    for (const org of ['a', 'b']) await world.put({ org, name: org })
    const watchers = await Promise.all(
      Array.from({ length: 8 }, (_, n) => {
        const org = n < 4 ? 'a' : 'b'
        return world.watch({ sub: `user ${n}`, org_id: org, iat: n }, { allowed: onlyOrg(org) })
      }),
    )
    for (const { client } of watchers) await client.until(() => client.frames.length > 2, 'it is live')
    const before = await classReads(world)
    await world.admin`update features set size = 7`
    for (const { client, view } of watchers)
      await client.until(() => view.rows.size === 1 && [...view.rows.values()][0]?.size === 7, 'the change')
    expect((await classReads(world)) - before).toBe(2)
  })

/** Correct where each request is a transaction, or a session, of its own: keeps what was found out about the user. */
const remembers = (isLocal: boolean) => `
  create function org_of_user() returns text language plpgsql as $$ begin
    if coalesce(current_setting('app.org', true), '') = '' then
      perform set_config('app.org', datum.claim('org_id'), ${isLocal});
    end if;
    return current_setting('app.org');
  end $$`

test('I1, I2: a policy that remembers the user remembers nobody else', async () => {
  for (const isLocal of [true, false]) {
    await using world = await createWorld({
      tables: [
        features({
          policies: `${remembers(isLocal)};
            alter table features enable row level security; alter table features force row level security;
            create policy p on features using (org_id = org_of_user())`,
        }),
      ],
    })
    const ids = new Map<string, string>()
    for (const org of ['a', 'b', 'c']) ids.set(org, await world.put({ org, name: org }))
    const watchers = await Promise.all(
      [...ids.keys()].map(async (org) => ({
        org,
        ...(await world.watch({ sub: org, org_id: org }, { allowed: onlyOrg(org) })),
      })),
    )
    // More than there are connections for it, so that each serves several users.
    for (let n = 0; n < 15; n++) {
      const org = ['a', 'b', 'c'][n % 3]!
      const { view } = await world.watch({ sub: `${n}`, org_id: org }, { allowed: onlyOrg(org) })
      expect([...view.rows.keys()]).toEqual([ids.get(org)!])
    }
    const before = await classReads(world)
    await world.admin`update features set size = 7`
    for (const { client, view, org } of watchers) {
      await client.until(() => [...view.rows.values()].some(({ size }) => size === 7), 'the change')
      expect([...view.rows.keys()]).toEqual([ids.get(org)!])
    }
    expect((await classReads(world)) - before).toBeGreaterThanOrEqual(3)

    const { sql } = world.openDatabase()
    const table = await readTable(sql, world.config.tables[0]!)
    const classes = [...ids.keys()].map((org) => ({
      settings: { 'datum.org_id': org },
      ids: [...ids.values()],
    }))
    const limits = { timeoutMs: null, lengthMax: 1_000_000 }
    expect(table.readFunction).not.toBeNull()
    // With the function that `setup` made, and as for a table that was altered since.
    for (const readFunction of [table.readFunction, null]) {
      const { results } = await readForClasses(sql, { ...table, readFunction }, classes, limits)
      const seen = results.map((result) =>
        'rows' in result ? result.rows.map(({ id }) => id) : result.error,
      )
      expect(seen).toEqual([...ids.values()].map((id) => [id]))
    }
  }
})
