/** What a user with a valid token can find out, or do, about rows that the policies keep from them. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { ROWS_PER_SUBSCRIPTION_MAX } from '../../src/wire/limits.ts'
import { createWorld, onlyOrg, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'
import type { View } from '../support/wire-client.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const mallory = { sub: 'mallory', org_id: 'b' }

test('I7: no subject that an issuer could make up is taken for another user’s, whose batches it would answer', async () => {
  await using world = await createWorld()
  const victim = { iss: 'https://issuer.test', sub: 'alice', org_id: 'a' }
  const victims = await world.connect(victim)
  const batch = crypto.randomUUID()
  const first = await victims.write([{ op: 'insert', columns: { org_id: 'a', name: 'first' } }], { batch })
  expect(first.edits[0]?.status).toBe('applied')
  const others = [
    { ...victim, sub: 'alice ' },
    { ...victim, sub: 'Alice' },
    { ...victim, iss: 'https://issuer.test/' },
    { sub: 'alice', org_id: 'a' },
    { sub: JSON.stringify(['https://issuer.test', 'alice']), org_id: 'a' },
    { sub: '', iss: JSON.stringify(['https://issuer.test', 'alice']), org_id: 'a' },
    { sub: `${JSON.stringify('https://issuer.test')},"alice`, org_id: 'a' },
    { org_id: 'a', iss: 'https://issuer.test' },
  ]
  for (const claims of others) {
    const other = await world.connect(claims)
    const { edits } = await other.write([{ op: 'delete', id: crypto.randomUUID() }], { batch })
    // Its own edits were tried, and no row is told of.
    expect({ claims, edits }).toMatchObject({ claims, edits: [{ status: 'rejected', code: 'not_found' }] })
  }
})

test('I2: what ends a view for too many rows counts those that its user sees', async () => {
  await using world = await createWorld()
  const seen = await world.put({ org: 'a' })
  await world.admin`
    insert into features (org_id, geom)
    select 'b', st_setsrid(st_makepoint(8.5, 47.5), 4326) from generate_series(1, ${ROWS_PER_SUBSCRIPTION_MAX + 10})`
  const { view } = await world.watch(alice, { allowed: onlyOrg('a') })
  expect(view.ended).toBeNull()
  expect([...view.rows.keys()]).toEqual([seen])
})

test('I12: what a trigger or a policy says in an error stays in the database', async () => {
  await using world = await createWorld({
    before: `create or replace function tells_all() returns trigger language plpgsql security definer as $$ begin
        raise exception 'the neighbours are %', (select string_agg(name, ', ') from features)
          using detail = 'classified detail', hint = 'classified hint', column = 'classified column';
      end $$`,
    tables: [
      features({
        policies: `${features().policies}; create trigger t before update on features for each row execute function tells_all();
          create policy casts on features as restrictive for delete using (name::int > 0)`,
      }),
    ],
  })
  await world.put({ org: 'a', name: 'classified neighbour' })
  const id = await world.put({ org: 'b', name: 'classified own' })
  const { client } = await world.watch(mallory)
  const before = client.frames.length
  await client.write([
    { op: 'update', id, columns: { size: 1 } },
    { op: 'delete', id },
    { op: 'insert', columns: { org_id: 'classified org' } },
  ])
  const told = JSON.stringify(client.frames.slice(before))
  expect(told).toContain('rejected')
  expect(told).not.toContain('classified')
})

test('I3: a user who guesses another’s row id learns nothing by any message', async () => {
  await using world = await createWorld()
  const secret = await world.put({ org: 'a', name: 'secret' })
  const nothing = crypto.randomUUID()
  const { client, view } = await world.watch(mallory, { allowed: onlyOrg('b') })
  await world.barrier(client, mallory)
  const answers: string[] = []
  for (const id of [secret, nothing]) {
    const own = await world.connect(mallory, { allowed: onlyOrg('b') })
    const resumed = await own.resume({ ...view, rows: new Map([[id, {}]]) } as View, { bbox: ZURICH })
    const { edits } = await own.write([
      { op: 'update', id, columns: { name: 'x' } },
      { op: 'delete', id },
      { op: 'update', id, columns: { org_id: 'b' } },
    ])
    answers.push(
      JSON.stringify([resumed.resumed, resumed.goneReceived, resumed.rows.size, edits]).replaceAll(id, 'ID'),
    )
  }
  expect(answers[0]).toBe(answers[1]!)
  const [row] = await world.admin`select name, org_id from features where id = ${secret}`
  expect(row).toEqual({ name: 'secret', org_id: 'a' })
})

test('a table that is not served is unknown, whether it exists or not', async () => {
  await using world = await createWorld({
    before: `drop table if exists unserved; create table unserved (id int primary key, geom geometry);
      grant select, insert on unserved to datum_app`,
  })
  const client = await world.connect(mallory)
  const answers: string[] = []
  for (const table of ['unserved', 'public.unserved', 'absent', 'pg_catalog.pg_class', 'datum.change']) {
    const { ended } = await client.subscribe({ sub: 's', table, bbox: ZURICH })
    const { edits } = await client.write([{ op: 'insert', columns: { id: 1 } }], { table })
    answers.push(JSON.stringify([ended, edits]))
  }
  expect(answers[0]).toContain('unknown_table')
  expect(new Set(answers).size).toBe(1)
})
