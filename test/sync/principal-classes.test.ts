/** Users whom policies or conversions tell apart without the class analysis noticing. Invariant 2. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)
const rls = `alter table features enable row level security; alter table features force row level security;`
const red = { sub: 'red', org_id: 'a', team: 'red', banned_from: 'blue' }
const blue = { sub: 'blue', org_id: 'a', team: 'blue', banned_from: 'red' }

test('I2: a PostGIS function that reads another table under row security (ST_FindExtent)', async () => {
  await using world = await createWorld({
    before: `create table areas (team text, geom geometry(Polygon, 4326));
      insert into areas values ('red', st_makeenvelope(8.1, 47.1, 8.2, 47.2, 4326)), ('blue', st_makeenvelope(8.6, 47.6, 8.7, 47.7, 4326));
      grant select on areas to datum_app; alter table areas enable row level security;
      create policy mine on areas using (team is distinct from current_setting('datum.banned_from', true));`,
    tables: [
      features({
        policies: `${rls} create policy p on features using (geom && st_findextent('areas', 'geom'))`,
      }),
    ],
  })
  await world.put({ name: 'red', at: [8.15, 47.15] })
  await world.put({ name: 'blue', at: [8.65, 47.65] })
  const r = await world.watch(red, { allowed: ({ name }) => name === 'red' })
  const b = await world.watch(blue, { allowed: ({ name }) => name === 'blue' })
  expect(r.view.rows.size).toBe(1)
  expect(b.view.rows.size).toBe(1)
  await world.admin`update features set size = 7`
  await r.client.until(() => [...r.view.rows.values()].every(({ size }) => size === 7), 'red')
  await b.client.until(() => [...b.view.rows.values()].every(({ size }) => size === 7), 'blue')
})

test('I2: names of columns with an apostrophe, which hide code from the reading of literals', async () => {
  await using world = await createWorld({
    tables: [
      features({
        columns: `, "a'1" boolean default true, "b'2" boolean default true`,
        policies: `${rls} create policy p on features using ("a'1" and name is distinct from current_setting('datum.' || 'banned_from', true) and "b'2")`,
      }),
    ],
  })
  await world.put({ name: 'red' })
  await world.put({ name: 'blue' })
  const r = await world.watch(red, { allowed: ({ name }) => name === 'red' })
  const b = await world.watch(blue, { allowed: ({ name }) => name === 'blue' })
  await world.admin`update features set size = 7`
  await r.client.until(() => [...r.view.rows.values()].every(({ size }) => size === 7), 'red')
  await b.client.until(() => [...b.view.rows.values()].every(({ size }) => size === 7), 'blue')
  expect(r.view.rows.size).toBe(1)
  expect(b.view.rows.size).toBe(1)
})

test('I2: a type whose conversion to text reads a claim (masking): what one class reads is not for another', async () => {
  await using world = await createWorld({
    before: `create type masked as (v text);
      create function masked_text(m masked) returns text language plpgsql stable as
        $$ begin return case when current_setting('datum.team', true) = 'blue' then '***' else (m).v end; end $$;
      create cast (masked as text) with function masked_text(masked);`,
    tables: [
      features({
        columns: `, phone masked`,
        policies: `${rls} create policy p on features using (org_id = current_setting('datum.org_id', true))`,
      }),
    ],
  })
  await world.put({ name: 'x' })
  const r = await world.watch(red)
  const b = await world.watch(blue, { allowed: ({ phone }) => phone === null || phone === '***' })
  await world.admin`update features set phone = row('secret')::masked, size = 7`
  await b.client.until(() => [...b.view.rows.values()].every(({ size }) => size === 7), 'blue')
  await r.client.until(() => [...r.view.rows.values()].every(({ size }) => size === 7), 'red')
})
