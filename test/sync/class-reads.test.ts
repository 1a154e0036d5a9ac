/** That users whom policies cannot tell apart do share a read: what the analysis concludes is what the database is asked. */
import { expect, setDefaultTimeout, test } from 'bun:test'
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
