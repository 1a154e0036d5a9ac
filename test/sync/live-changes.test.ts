/** What other people's SQL does to a view: rows appear, change, leave, and vanish. Invariants 2, 3 and 4. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { backendKind } from '../support/backend.ts'
import { createWorld, onlyOrg, point, TEST_TIMEOUT_MS } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const bob = { sub: 'bob', org_id: 'b' }
const realOnly = (await backendKind()) === 'postgres' ? test : test.skip

test('I4: the initial state is what SELECT shows under the claims within the box', async () => {
  await using world = await createWorld()
  await world.admin`
    insert into features (org_id, name, size, geom)
    select case n % 3 when 0 then 'a' when 1 then 'b' end, 'row ' || n, n,
      st_setsrid(st_makepoint(7.5 + (n % 40) / 20.0, 46.5 + (n / 40) / 20.0), 4326)
    from generate_series(0, 1599) n`
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  const expected = await world.truth(alice)
  expect(view.rows.size).toBe(expected.size)
  expect(expected.size).toBeGreaterThan(50)
  await world.untilTrue(client, view, alice)
  expect(view.resumed).toBe(false)
  expect(view.cursor).toBeString()
  expect(view.goneReceived).toBe(0)
})

test('what the server says about the table', async () => {
  await using world = await createWorld()
  const { view } = await world.watch(alice)
  expect(view.table).toEqual({
    name: 'features',
    idColumn: 'id',
    idType: 'uuid',
    geometryColumn: 'geom',
    columns: [
      { name: 'id', type: 'uuid', nullable: false, hasDefault: true },
      { name: 'org_id', type: 'text', nullable: true, hasDefault: false },
      { name: 'name', type: 'text', nullable: true, hasDefault: false },
      { name: 'size', type: 'integer', nullable: true, hasDefault: false },
      { name: 'geom', type: 'geometry(Geometry,4326)', nullable: true, hasDefault: false },
    ],
  })
})

test('I4: an insert, an update and a delete arrive', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  const id = await world.put({ org: 'a', name: 'new', size: 1, at: [8.25, 47.75] })
  await client.until(() => view.rows.has(id), 'it is there')
  expect(view.rows.get(id)).toEqual({ id, org_id: 'a', name: 'new', size: 1, geom: point(8.25, 47.75) })
  await world.admin`update features set name = 'renamed', size = null where id = ${id}`
  await client.until(() => view.rows.get(id)?.name === 'renamed', 'it is renamed')
  expect(view.rows.get(id)).toEqual({
    id,
    org_id: 'a',
    name: 'renamed',
    size: null,
    geom: point(8.25, 47.75),
  })
  await world.admin`delete from features where id = ${id}`
  await client.until(() => !view.rows.has(id), 'it is gone')
  expect(client.frames.at(-1)).not.toHaveProperty('rows')
})

test('I3: what another tenant writes and deletes sends nothing at all', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  const id = await world.put({ org: 'b' })
  await world.admin`update features set name = 'secret' where id = ${id}`
  await world.admin`delete from features where id = ${id}`
  await world.barrier(client, alice)
  expect(JSON.stringify(client.frames)).not.toContain(id)
  expect(view.goneReceived).toBe(1)
})

test('I3: a row that leaves the tenant is gone for one and appears for the other', async () => {
  await using world = await createWorld()
  const [a, b] = [
    await world.watch(alice, { allowed: onlyOrg('a') }),
    await world.watch(bob, { allowed: onlyOrg('b') }),
  ]
  const id = await world.put({ org: 'a' })
  await a.client.until(() => a.view.rows.has(id), 'a has it')
  await world.admin`update features set org_id = 'b', name = 'of b' where id = ${id}`
  await b.client.until(() => b.view.rows.has(id), 'b has it')
  await a.client.until(() => !a.view.rows.has(id), 'a has it no more')
  expect(JSON.stringify(a.client.frames)).not.toContain('of b')
  await world.admin`update features set org_id = null where id = ${id}`
  await b.client.until(() => !b.view.rows.has(id), 'b has it no more')
  await world.admin`update features set org_id = 'a' where id = ${id}`
  await a.client.until(() => a.view.rows.has(id), 'a has it again')
})

test('I4: a row that leaves the box is gone, one that enters appears, one that moves within stays', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  const id = await world.put({ org: 'a' })
  await client.until(() => view.rows.has(id), 'it is there')
  const move = (x: number, y: number) =>
    world.admin`update features set geom = st_setsrid(st_makepoint(${x}, ${y}), 4326) where id = ${id}`
  await move(8.75, 47.25)
  await client.until(
    () => JSON.stringify(view.rows.get(id)?.geom) === JSON.stringify(point(8.75, 47.25)),
    'it moved',
  )
  expect(view.goneReceived).toBe(0)
  await move(9.5, 47.25)
  await client.until(() => !view.rows.has(id), 'it left')
  await world.admin`update features set name = 'far away' where id = ${id}`
  await world.barrier(client, alice)
  expect(JSON.stringify(client.frames)).not.toContain('far away')
  await move(9, 48)
  await client.until(() => view.rows.get(id)?.name === 'far away', 'it came back onto the very corner')
})

test('I4: a change that moves a row into the box and the tenant at once, and out of both', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  const id = await world.put({ org: 'b', at: [100, 0] })
  await world.admin`update features set org_id = 'a', geom = st_setsrid(st_makepoint(8.5, 47.5), 4326) where id = ${id}`
  await client.until(() => view.rows.has(id), 'it is there')
  await world.admin`update features set org_id = 'b', geom = st_setsrid(st_makepoint(100, 0), 4326) where id = ${id}`
  await client.until(() => !view.rows.has(id), 'it is gone')
})

test('I4: TRUNCATE empties every view', async () => {
  await using world = await createWorld()
  for (let n = 0; n < 20; n++) await world.put({ org: n % 2 ? 'a' : 'b' })
  const [a, b] = [await world.watch(alice), await world.watch(bob)]
  await world.admin`truncate features`
  await a.client.until(() => a.view.rows.size === 0, 'a is empty')
  await b.client.until(() => b.view.rows.size === 0, 'b is empty')
  const id = await world.put({ org: 'a' })
  await a.client.until(() => a.view.rows.has(id), 'and live')
})

test('I4: one statement over 5,000 rows arrives whole', async () => {
  await using world = await createWorld()
  await world.admin`
    insert into features (org_id, size, geom)
    select case when n % 2 = 0 then 'a' else 'b' end, 0, st_setsrid(st_makepoint(8 + random(), 47 + random()), 4326)
    from generate_series(1, 5000) n`
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  expect(view.rows.size).toBe(2500)
  await world.admin`update features set size = 7`
  await client.until(() => [...view.rows.values()].every((row) => row.size === 7), 'all are updated')
  await world.admin`delete from features where size = 7 and id::text < '8'`
  await world.untilTrue(client, view, alice)
})

test('I4: what is rolled back, wholly or to a savepoint, is not shown', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  const undone = world.admin.begin(async (tx) => {
    await tx`insert into features (org_id, name, geom) values ('a', 'undone', st_setsrid(st_makepoint(8.5, 47.5), 4326))`
    throw new Error('roll back')
  })
  expect(undone).rejects.toThrow('roll back')
  await undone.catch(() => {})
  await world.admin.begin(async (tx) => {
    await tx`insert into features (org_id, name, geom) values ('a', 'kept', st_setsrid(st_makepoint(8.5, 47.5), 4326))`
    await tx
      .savepoint(async (inner) => {
        await inner`update features set name = 'undone'`
        throw new Error('roll back')
      })
      .catch(() => {})
  })
  await client.until(() => view.rows.size === 1, 'one row')
  await world.barrier(client, alice)
  expect(JSON.stringify(client.frames)).not.toContain('undone')
})

realOnly(
  'I5: a transaction that began early and commits late is not missed (needs two connections)',
  async () => {
    await using world = await createWorld()
    const { client, view } = await world.watch(alice)
    const hold = Promise.withResolvers<void>()
    const written = Promise.withResolvers<string>()
    const slow = world.admin.begin(async (tx) => {
      const [row] = await tx`
      insert into features (org_id, name, geom) values ('a', 'late', st_setsrid(st_makepoint(8.5, 47.5), 4326))
      returning id`
      written.resolve(row!.id)
      await hold.promise
    })
    const lateId = await written.promise
    // Others commit meanwhile, and are not held up.
    for (let n = 0; n < 5; n++) await world.barrier(client, alice)
    expect(view.rows.has(lateId)).toBe(false)
    hold.resolve()
    await slow
    await client.until(() => view.rows.has(lateId), 'the late row is there')
  },
)

realOnly(
  'I5: a subscription made while a transaction is open shows it once it commits (needs two connections)',
  async () => {
    await using world = await createWorld()
    const gone = await world.put({ org: 'a', name: 'to be deleted' })
    const hold = Promise.withResolvers<void>()
    const written = Promise.withResolvers<void>()
    const slow = world.admin.begin(async (tx) => {
      await tx`insert into features (org_id, name, geom) values ('a', 'late', st_setsrid(st_makepoint(8.5, 47.5), 4326))`
      await tx`delete from features where id = ${gone}`
      written.resolve()
      await hold.promise
    })
    await written.promise
    const { client, view } = await world.watch(alice)
    expect([...view.rows.keys()]).toEqual([gone])
    hold.resolve()
    await slow
    await client.until(() => view.rows.size === 1 && !view.rows.has(gone), 'the late change is there')
  },
)

realOnly(
  'I5: two transactions on one row, committed against the order they began in (needs two connections)',
  async () => {
    await using world = await createWorld()
    const [one, two] = [await world.put({ org: 'a', size: 0 }), await world.put({ org: 'a', size: 0 })]
    const { client, view } = await world.watch(alice)
    const hold = Promise.withResolvers<void>()
    const began = Promise.withResolvers<void>()
    const older = world.admin.begin(async (tx) => {
      await tx`update features set size = 1 where id = ${one}`
      began.resolve()
      await hold.promise
      await tx`update features set size = 3 where id = ${two}`
    })
    await began.promise
    await world.admin`update features set size = 2 where id = ${two}`
    await client.until(() => view.rows.get(two)?.size === 2, 'the younger is there')
    hold.resolve()
    await older
    await client.until(
      () => view.rows.get(two)?.size === 3 && view.rows.get(one)?.size === 1,
      'the older is there',
    )
  },
)

test('I4: a changed primary key is one row gone and another one there', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  const id = await world.put({ org: 'a', name: 'renumbered' })
  await client.until(() => view.rows.has(id), 'it is there')
  const [row] = await world.admin`update features set id = gen_random_uuid() where id = ${id} returning id`
  await client.until(() => view.rows.has(row!.id) && !view.rows.has(id), 'it has its new id')
})

test('I4: a row deleted and made again with the same id, in one transaction and in two', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  const id = await world.put({ org: 'a', name: 'first' })
  await client.until(() => view.rows.has(id), 'it is there')
  await world.admin.begin(async (tx) => {
    await tx`delete from features where id = ${id}`
    await tx`
      insert into features (id, org_id, name, geom)
      values (${id}, 'a', 'second', st_setsrid(st_makepoint(8.5, 47.5), 4326))`
  })
  await client.until(() => view.rows.get(id)?.name === 'second', 'the second is there')
  await world.admin`delete from features where id = ${id}`
  await world.put({ id, org: 'a', name: 'third' })
  await client.until(() => view.rows.get(id)?.name === 'third', 'the third is there')
})

test('I4: COPY, MERGE, INSERT … ON CONFLICT and a CTE that writes are seen like any write', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  const id = await world.put({ org: 'a', name: 'there' })
  await world.admin`
    insert into features (id, org_id, name) values (${id}, 'a', 'upserted')
    on conflict (id) do update set name = excluded.name`
  await client.until(() => view.rows.get(id)?.name === 'upserted', 'the upsert is there')
  await world.admin`
    with changed as (update features set name = 'by CTE' where id = ${id} returning *)
    insert into features (org_id, name, geom) select org_id, 'copy of ' || name, geom from changed`
  await client.until(() => view.rows.size === 2 && view.rows.get(id)?.name === 'by CTE', 'the CTE is there')
  await world.admin`
    merge into features f using (values (${id}::uuid)) v (id) on f.id = v.id
    when matched then update set name = 'merged'`
  await client.until(() => view.rows.get(id)?.name === 'merged', 'the merge is there')
  await world.untilTrue(client, view, alice)
})

test('I4: datum.refresh shows what a table behind a policy changed', async () => {
  await using world = await createWorld({
    before: `create table if not exists member (org_id text, who text); delete from member;
      grant select on member to datum_app`,
    tables: [
      features({
        policies: `alter table features enable row level security; alter table features force row level security;
          create policy members on features using
            (exists (select from member m where m.org_id = features.org_id and m.who = datum.claim('sub')))`,
      }),
    ],
  })
  const id = await world.put({ org: 'a' })
  const { client, view } = await world.watch(alice)
  expect(view.rows.size).toBe(0)
  await world.admin`insert into member values ('a', 'alice')`
  await world.admin`select datum.refresh('features')`
  await client.until(() => view.rows.has(id), 'a member sees it')
  await world.admin`delete from member`
  await world.admin`select datum.refresh('features')`
  await client.until(() => view.rows.size === 0, 'a former member does not')
  await world.admin`drop table member cascade`
})

test('several subscriptions of one socket are kept apart', async () => {
  await using world = await createWorld()
  const client = await world.connect(alice)
  const west = await client.subscribe({ sub: 'west', bbox: [8, 47, 8.5, 48] })
  const east = await client.subscribe({ sub: 'east', bbox: [8.5, 47, 9, 48] })
  const left = await world.put({ at: [8.1, 47.1] })
  const right = await world.put({ at: [8.9, 47.1] })
  const middle = await world.put({ at: [8.5, 47.1] })
  await client.until(() => west.rows.size === 2 && east.rows.size === 2, 'each has two')
  expect([...west.rows.keys()].sort()).toEqual([left, middle].sort())
  expect([...east.rows.keys()].sort()).toEqual([right, middle].sort())
  client.unsubscribe('west')
  await world.admin`delete from features`
  await client.until(() => east.rows.size === 0, 'east is empty')
  await world.barrier(client, alice, { sub: 'east', at: [8.7, 47.5] })
  const later = client.frames.slice(
    client.frames.findLastIndex((frame) => frame.type === 'view' && frame.sub === 'west') + 1,
  )
  expect(later.length).toBeGreaterThan(0)
})
