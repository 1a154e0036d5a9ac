/** The kinds of tables that can be served: ids, reference systems, geography, none, and several at once. */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { createWorld, onlyOrg, point, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { features, tenantPolicies } from '../support/table-spec.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

describe('id types', () => {
  const IDS = [
    {
      id: 'uuid',
      idType: 'uuid',
      values: ['7b0e9d3c-51f1-4d2b-9a63-0e0a4b6f2c11', 'ffffffff-ffff-ffff-ffff-ffffffffffff'],
    },
    { id: 'text', idType: 'text', values: ['plain', '', `it's "quoted" \\ and\nlong`, 'ünï©ødé 🗺', '%_'] },
    { id: 'smallint', idType: 'integer', values: [-1, 0, 32767] },
    { id: 'integer', idType: 'integer', values: [-2147483648, 0, 2147483647] },
    {
      id: 'bigint',
      idType: 'integer',
      values: ['-9223372036854775808', '9007199254740993', '9223372036854775807'],
    },
  ] as const
  for (const { id, idType, values } of IDS)
    test(`I4: ${id}: shown, changed, resumed, written and deleted`, async () => {
      await using world = await createWorld({ tables: [features({ id })] })
      for (const value of values) await world.put({ id: value, org: 'a', name: 'early' })
      await world.put({ id: id === 'uuid' ? crypto.randomUUID() : id === 'text' ? 'foreign' : 77, org: 'b' })
      const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
      expect(view.table?.idType).toBe(idType)
      expect([...view.rows.keys()].sort()).toEqual(values.map(String).sort())
      const sent = [...view.rows.values()].map((row) => row.id)
      expect([...sent].sort()).toEqual([...values].sort())
      await world.admin`update features set name = 'late'`
      await client.until(() => [...view.rows.values()].every((row) => row.name === 'late'), 'all are late')

      const edits = values.map(
        (value) => ({ op: 'update', id: String(value), columns: { name: 'written' } }) as const,
      )
      const outcome = await client.write(edits)
      expect(outcome.edits).toEqual(values.map((value) => ({ status: 'applied', id: String(value) })))
      await client.until(
        () => [...view.rows.values()].every((row) => row.name === 'written'),
        'all are written',
      )

      client.kill()
      await world.admin`delete from features where org_id = 'a' and id::text = ${String(values[0])}`
      const again = await world.connect(alice, { allowed: onlyOrg('a') })
      const resumed = await again.resume(view, { bbox: ZURICH })
      expect([...resumed.rows.keys()].sort()).toEqual(values.slice(1).map(String).sort())
      const deletion = await again.write([{ op: 'delete', id: String(values[1]) }])
      expect(deletion.edits).toEqual([{ status: 'applied', id: String(values[1]) }])
      await world.untilTrue(again, resumed, alice)
    })
})

test('ids that are not of the type are not found, and cost the socket nothing', async () => {
  await using world = await createWorld({
    tables: [features(), features({ name: 'counted', id: 'integer' })],
  })
  const { client } = await world.watch(alice)
  const ids = ['nonsense', '', '1', "' or true --", '7b0e9d3c', '9'.repeat(40), '1.5', 'null']
  const { edits } = await client.write(ids.map((id) => ({ op: 'delete', id }) as const))
  for (const edit of edits)
    expect(['not_found', 'invalid']).toContain(edit.status === 'rejected' ? edit.code : 'applied')
  const counted = await client.write(
    ids.map((id) => ({ op: 'update', id, columns: { size: 1 } }) as const),
    {
      table: 'counted',
    },
  )
  for (const edit of counted.edits)
    expect(['not_found', 'invalid']).toContain(edit.status === 'rejected' ? edit.code : 'applied')
  await client.ping()
})

test('I4: UUIDs are the same in upper case', async () => {
  await using world = await createWorld()
  const id = '7b0e9d3c-51f1-4d2b-9a63-0e0a4b6f2c11'
  await world.put({ id: id.toUpperCase(), org: 'a' })
  const { client, view } = await world.watch(alice)
  expect([...view.rows.keys()]).toEqual([id])
  const { edits } = await client.write([{ op: 'update', id: id.toUpperCase(), columns: { name: 'shouted' } }])
  expect(edits).toEqual([{ status: 'applied', id }])
  await client.until(() => view.rows.get(id)?.name === 'shouted', 'the same row')
})

describe('geometry', () => {
  for (const geometry of [
    'geometry(Geometry, 3857)',
    'geometry(Point, 2056)',
    'geography(Point, 4326)',
    'geometry(Point, 4326)',
  ])
    test(`I4: ${geometry}: box, changes and writes are in WGS 84`, async () => {
      await using world = await createWorld({ tables: [features({ geometry })] })
      const inside = await world.put({ at: [8.5, 47.5] })
      await world.put({ at: [8.5, 46.9] })
      await world.put({ at: [9.1, 47.5] })
      const { client, view } = await world.watch(alice)
      expect([...view.rows.keys()]).toEqual([inside])
      const { coordinates } = view.rows.get(inside)!.geom as { coordinates: number[] }
      expect(coordinates[0]).toBeCloseTo(8.5, 6)
      expect(coordinates[1]).toBeCloseTo(47.5, 6)
      const id = crypto.randomUUID()
      const outcome = await client.write([
        { op: 'insert', columns: { id, org_id: 'a', geom: point(8.25, 47.25) } },
        { op: 'update', id: inside, columns: { geom: point(10, 47.5) } },
      ])
      expect(outcome.edits.map((edit) => edit.status)).toEqual(['applied', 'applied'])
      await client.until(() => view.rows.has(id) && !view.rows.has(inside), 'written and moved out')
      const [row] = await world.admin`
        select st_x(st_transform(geom::geometry, 4326)) as x, st_srid(geom::geometry) as srid from features where id = ${id}`
      expect(row!.x).toBeCloseTo(8.25, 6)
      await world.untilTrue(client, view, alice)
    })

  test('I4: a box over the antimeridian on a table in another system', async () => {
    await using world = await createWorld({ tables: [features({ geometry: 'geometry(Geometry, 3857)' })] })
    const ids = [await world.put({ at: [179, -17] }), await world.put({ at: [-179, -17] })]
    await world.put({ at: [0, -17] })
    const { client, view } = await world.watch(alice, { bbox: [170, -20, -170, -10] })
    expect([...view.rows.keys()].sort()).toEqual([...ids].sort())
    await client.setBbox('s', 1, [-180, -90, 180, 90])
    expect(view.rows.size).toBe(3)
  })

  test('I4: the edges of a box hold on a table in another system', async () => {
    await using world = await createWorld({ tables: [features({ geometry: 'geometry(Geometry, 2056)' })] })
    // Straight lines in one system are curves in another: near the edge both ways of looking must agree.
    await world.admin`
      insert into features (org_id, geom)
      select 'a', st_transform(st_setsrid(st_makepoint(7.999 + n / 1000.0, 48.0 - (n % 3 - 1) * 0.0002), 4326), 2056)
      from generate_series(0, 1002) n`
    const { client, view } = await world.watch(alice)
    await world.untilTrue(client, view, alice)
    await world.admin`update features set size = 1`
    await client.until(() => [...view.rows.values()].every((row) => row.size === 1), 'all are changed')
    await world.untilTrue(client, view, alice)
  })

  test('Z, multi, collections and holes arrive as GeoJSON', async () => {
    await using world = await createWorld({ tables: [features({ geometry: 'geometry(GeometryZ, 4326)' })] })
    await world.admin`insert into features (org_id, name, geom) values
      ('a', 'z', 'SRID=4326;POINT Z (8.5 47.5 410.25)'),
      ('a', 'collection', 'SRID=4326;GEOMETRYCOLLECTION Z (POINT Z (8.5 47.5 1), LINESTRING Z (8 47 0, 9 48 0))')`
    const { view } = await world.watch(alice)
    const byName = Object.fromEntries([...view.rows.values()].map((row) => [row.name, row.geom]))
    expect(byName.z).toEqual({ type: 'Point', coordinates: [8.5, 47.5, 410.25] })
    expect(byName.collection).toMatchObject({ type: 'GeometryCollection' })
  })

  test('coordinates keep their digits', async () => {
    await using world = await createWorld()
    const [x, y] = [8.123456789012, 47.98765432101]
    const id = await world.put({ at: [x, y] })
    const { client, view } = await world.watch(alice)
    expect(view.rows.get(id)?.geom).toEqual(point(x, y))
    await client.write([{ op: 'update', id, columns: { geom: point(8.1 + 0.2, 47.1) } }])
    await client.until(
      () => JSON.stringify(view.rows.get(id)?.geom) === JSON.stringify(point(8.1 + 0.2, 47.1)),
      'exact',
    )
  })
})

describe('without geometry', () => {
  test('I4: a table takes no box and shows all that the claims see', async () => {
    await using world = await createWorld({ tables: [features({ geometry: null })] })
    const id = await world.put({ org: 'a' })
    await world.put({ org: 'b' })
    const client = await world.connect(alice, { allowed: onlyOrg('a') })
    const view = await client.subscribe()
    expect(view.table?.geometryColumn).toBeNull()
    expect([...view.rows.keys()]).toEqual([id])
    const live = await world.put({ org: 'a' })
    await client.until(() => view.rows.has(live), 'live')
    await world.admin`delete from features where id = ${id}`
    await world.untilTrue(client, view, alice)
  })

  test('a box for it ends the subscription', async () => {
    await using world = await createWorld({ tables: [features({ geometry: null })] })
    const client = await world.connect(alice)
    expect((await client.subscribe({ bbox: ZURICH })).ended?.code).toBe('invalid')
  })
})

describe('several tables', () => {
  test('I4: on one socket, the first is the default, each with its own policies', async () => {
    const open = {
      name: 'open_data',
      policies: 'alter table open_data enable row level security; create policy p on open_data using (true)',
    }
    await using world = await createWorld({
      tables: [features(), features(open), features({ name: 'notes', geometry: null, id: 'bigint' })],
    })
    const mine = await world.put({ org: 'a' })
    await world.put({ org: 'b' })
    const shared = await world.put({ org: 'b', table: 'open_data' })
    const note = await world.put({ org: 'a', table: 'notes' })
    const client = await world.connect(alice)
    const byDefault = await client.subscribe({ sub: '1', bbox: ZURICH })
    const openData = await client.subscribe({ sub: '2', table: 'open_data', bbox: ZURICH })
    const notes = await client.subscribe({ sub: '3', table: 'notes' })
    expect([...byDefault.rows.keys()]).toEqual([mine])
    expect([...openData.rows.keys()]).toEqual([shared])
    expect([...notes.rows.keys()]).toEqual([note])
    await world.admin`update notes set name = 'only here'`
    await client.until(() => notes.rows.get(note)?.name === 'only here', 'the note changed')
    expect(byDefault.rows.get(mine)?.name).toBeNull()
  })

  test('I4: quoted names, another schema, mixed case', async () => {
    const name = 'geo.parcels'
    await using world = await createWorld({
      before: 'drop schema if exists geo cascade; create schema geo; grant usage on schema geo to datum_app',
      tables: [
        {
          name,
          idColumn: 'Parcel No',
          geometryColumn: 'The "Geom"',
          sql: `create table ${name} ("Parcel No" text primary key, org_id text, "select" text, "The ""Geom""" geometry(Point, 4326))`,
          policies: tenantPolicies(name),
        },
      ],
    })
    await world.admin`
      insert into geo.parcels values ('x''1', 'a', 'v', st_setsrid(st_makepoint(8.5, 47.5), 4326)), ('2', 'b', 'w', null)`
    const client = await world.connect(alice, { allowed: onlyOrg('a') })
    const view = await client.subscribe({ table: name, bbox: ZURICH })
    expect([...view.rows.values()]).toEqual([
      { 'Parcel No': "x'1", org_id: 'a', select: 'v', 'The "Geom"': point(8.5, 47.5) },
    ])
    const outcome = await client.write([{ op: 'update', id: "x'1", columns: { select: 'written' } }], {
      table: name,
    })
    expect(outcome.edits).toEqual([{ status: 'applied', id: "x'1" }])
    await client.until(() => view.rows.get("x'1")?.select === 'written', 'written')
  })
})

test('I4: a partitioned table is served whole', async () => {
  await using world = await createWorld({
    tables: [
      {
        name: 'features',
        geometryColumn: 'geom',
        sql: `create table features (id uuid primary key default gen_random_uuid(), org_id text, name text, size integer,
            geom geometry(Geometry, 4326)) partition by hash (id);
          create table features_0 partition of features for values with (modulus 2, remainder 0);
          create table features_1 partition of features for values with (modulus 2, remainder 1)`,
        policies: tenantPolicies('features'),
      },
    ],
  })
  for (let n = 0; n < 10; n++) await world.put({ org: n % 2 ? 'a' : 'b' })
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  expect(view.rows.size).toBe(5)
  await world.admin`update features set size = 3`
  await client.until(() => [...view.rows.values()].every((row) => row.size === 3), 'all are changed')
  // Straight into a partition, as bulk loaders do.
  const [row] = await world.admin`
    update features_0 set size = 4 where org_id = 'a' and id = (select min(id::text)::uuid from features_0 where org_id = 'a')
    returning id`
  if (row) await client.until(() => view.rows.get(row.id)?.size === 4, 'the partition write is there')
  await world.untilTrue(client, view, alice)
})
