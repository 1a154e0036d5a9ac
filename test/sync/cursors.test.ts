/** What a cursor and `settled` promise: that the view has all that was committed before, and not that it soon will. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import type { Sql } from 'postgres'
import { backendKind } from '../support/backend.ts'
import { createWorld, onlyOrg, point, TEST_TIMEOUT_MS } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

/** In the embedded Postgres nothing else happens while a read goes on. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

/** Reading takes long enough to be asked meanwhile, once the switch is on. */
const policies = `
  create table switch (is_on boolean);
  grant select on switch to public;
  alter table features enable row level security;
  alter table features force row level security;
  create policy writing on features for insert with check (true);
  create policy reading on features for select using (org_id = datum.claim('org_id')
    and case when exists (select from switch where is_on) then pg_sleep(0.3) is not null else true end)`

/** By Postgres's own word: whether the transaction is among those that the cursor covers. */
async function covers(admin: Sql, cursor: string, xid: string): Promise<boolean> {
  const [row] = await admin`
    select pg_visible_in_snapshot(${xid}::text::xid8, ${cursor.split('/')[1] ?? ''}::text::pg_snapshot) as covers`
  return row?.covers === true
}

onServer('I5: a cursor is not told before the view has what it covers', async () => {
  await using world = await createWorld({ tables: [features({ policies })] })
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  await world.admin`insert into switch values (true)`
  const [made] = await world.admin`
    insert into features (org_id, geom) values ('a', st_setsrid(st_makepoint(8.5, 47.5), 4326))
    returning id::text, pg_current_xact_id()::text as xid`
  const { id, xid } = made as unknown as { id: string; xid: string }
  const early: string[] = []
  while (!view.rows.has(id)) {
    const { s: cursor } = await client.ping()
    if (cursor !== undefined && !view.rows.has(id)) early.push(cursor)
    await Bun.sleep(5)
  }
  // Cursors were told while the row was being read.
  expect(early.length).toBeGreaterThan(3)
  for (const cursor of new Set(early)) expect(await covers(world.admin, cursor, xid)).toBe(false)
  const last = await client.until(() => view.cursor, 'a cursor')
  expect(await covers(world.admin, last, xid)).toBe(true)
})

onServer('I5: a batch is not settled before the view has what it did', async () => {
  await using world = await createWorld({ tables: [features({ policies })] })
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  await world.admin`insert into switch values (true)`
  const [id, batch] = [crypto.randomUUID(), crypto.randomUUID()]
  const columns = { id, org_id: 'a', geom: point(8.5, 47.5) }
  await client.write([{ op: 'insert', columns }], { batch })
  expect(view.rows.has(id)).toBe(false)
  await client.until(() => view.settled.has(batch) || view.rows.has(id), 'settled, or shown')
  expect(view.rows.has(id)).toBe(true)
  await client.until(() => view.settled.has(batch), 'settled')
})
