/** Boxes: moving one sends the difference, and what "in the box" means. Invariant 4. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import type { Bbox } from '../../src/wire/messages.ts'
import { createWorld, EARTH, onlyOrg, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

test('a moved box sends the rows that enter and the ids that leave, and no other row', async () => {
  await using world = await createWorld()
  const west = await world.put({ at: [8.2, 47.5] })
  const both = await world.put({ at: [8.5, 47.5] })
  const east = await world.put({ at: [8.8, 47.5] })
  await world.put({ org: 'b', at: [8.8, 47.5] })
  const { client, view } = await world.watch(alice, { bbox: [8, 47, 8.6, 48], allowed: onlyOrg('a') })
  expect([...view.rows.keys()].sort()).toEqual([west, both].sort())
  // What was written just before may come twice, so it is let pass before counting.
  await world.barrier(client, alice)
  const [before, goneBefore] = [view.rowsReceived, view.goneReceived]
  await client.setBbox('s', 1, [8.4, 47, 9, 48])
  expect([...view.rows.keys()].sort()).toEqual([both, east].sort())
  expect(view.rowsReceived - before).toBe(1)
  expect(view.goneReceived - goneBefore).toBe(1)
})

test('after a move, changes follow the new box only', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice, { bbox: [8, 47, 8.4, 48] })
  await client.setBbox('s', 1, [8.6, 47, 9, 48])
  const [left, right] = [await world.put({ at: [8.2, 47.5] }), await world.put({ at: [8.8, 47.5] })]
  await client.until(() => view.rows.has(right), 'the right one is there')
  await world.barrier(client, alice, { at: [8.7, 47.5] })
  expect(JSON.stringify(client.frames)).not.toContain(left)
})

test('boxes moved faster than they are answered end at the newest', async () => {
  await using world = await createWorld()
  await world.admin`
    insert into features (org_id, geom) select 'a', st_setsrid(st_makepoint(8 + n / 400.0, 47.5), 4326)
    from generate_series(0, 399) n`
  const { client, view } = await world.watch(alice, { bbox: [8, 47, 8.1, 48] })
  let last: Bbox = ZURICH
  for (let seq = 1; seq <= 40; seq++) {
    last = [8 + seq / 50, 47, 8.1 + seq / 50, 48]
    client.send({ type: 'bbox', sub: 's', seq, bbox: last })
  }
  await client.until(() => view.complete === 40, 'the last is complete')
  await world.untilTrue(client, view, alice, last)
})

test('I4: a box that leaves and comes back at once misses no change of the rows it never let go of', async () => {
  await using world = await createWorld()
  const ids = await Promise.all(Array.from({ length: 20 }, () => world.put({ org: 'a', size: 0 })))
  const { client, view } = await world.watch(alice)
  for (let turn = 0; turn < 40; turn++) {
    // The first box is hardly compared before the second supersedes it; the change falls in between.
    client.send({ type: 'bbox', sub: 's', seq: 2 * turn + 1, bbox: [0, 0, 1, 1] })
    const write = world.admin`update features set size = size + 1 where id = ${ids[turn % 20] ?? ''}`
    if (turn % 2 === 0) await write
    client.send({ type: 'bbox', sub: 's', seq: 2 * turn + 2, bbox: ZURICH })
    await write
  }
  await client.until(() => view.complete === 80, 'the last is complete')
  await world.untilTrue(client, view, alice)
})

test('a box moved before the initial state is complete', async () => {
  await using world = await createWorld()
  await world.admin`
    insert into features (org_id, name, geom)
    select 'a', repeat('x', 500), st_setsrid(st_makepoint(8 + n / 5000.0, 47.5), 4326) from generate_series(0, 4999) n`
  const client = await world.connect(alice)
  const view = client.startSubscribe({ bbox: [8, 47, 8.9, 48] })
  client.send({ type: 'bbox', sub: 's', seq: 1, bbox: [8.8, 47, 9, 48] })
  await client.until(() => view.complete === 1, 'the second box is complete')
  await world.untilTrue(client, view, alice, [8.8, 47, 9, 48])
})

test('a seq that is not newer is not obeyed', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  await client.setBbox('s', 5, [8, 47, 8.4, 48])
  client.send({ type: 'bbox', sub: 's', seq: 4, bbox: ZURICH })
  client.send({ type: 'bbox', sub: 's', seq: 5, bbox: ZURICH })
  await client.setBbox('s', 6, [8, 47, 8.6, 48])
  expect(view.complete).toBe(6)
  await world.put({ at: [8.9, 47.5] })
  await world.barrier(client, alice, { at: [8.3, 47.5] })
  expect(view.rows.size).toBe(0)
})

test('a box over the antimeridian shows both sides and not the rest of the world', async () => {
  await using world = await createWorld()
  const fiji = await world.put({ at: [179.5, -17] })
  const samoa = await world.put({ at: [-171.8, -13.8] })
  const edges = [await world.put({ at: [180, -15] }), await world.put({ at: [-180, -15] })]
  await world.put({ at: [0, -15] })
  await world.put({ at: [170, -15] })
  const pacific: Bbox = [175, -20, -170, -10]
  const { client, view } = await world.watch(alice, { bbox: pacific })
  expect([...view.rows.keys()].sort()).toEqual([fiji, samoa, ...edges].sort())
  const live = await world.put({ at: [-175, -12] })
  await client.until(() => view.rows.has(live), 'a live row east of it')
  await world.admin`update features set geom = st_setsrid(st_makepoint(10, -12), 4326) where id = ${live}`
  await client.until(() => !view.rows.has(live), 'it left')
  await client.setBbox('s', 1, [178, -20, -179, -10])
  expect([...view.rows.keys()].sort()).toEqual([fiji, ...edges].sort())
  await world.untilTrue(client, view, alice, [178, -20, -179, -10])
})

test('lines and areas are in every box that their envelope touches', async () => {
  await using world = await createWorld()
  const put = async (wkt: string) => {
    const [row] = await world.admin`
      insert into features (org_id, geom) values ('a', st_geomfromtext(${wkt}, 4326)) returning id`
    return row!.id as string
  }
  const line = await put('LINESTRING(7 46, 10 49)')
  const around = await put('POLYGON((0 40, 20 40, 20 60, 0 60, 0 40))')
  const touching = await put('POLYGON((9 48, 10 48, 10 49, 9 49, 9 48))')
  const passing = await put('LINESTRING(7 47.9, 8.1 49)')
  await put('LINESTRING(9.001 47, 9.001 48)')
  await put('MULTIPOINT((1 1), (2 2))')
  const { client, view } = await world.watch(alice)
  expect([...view.rows.keys()].sort()).toEqual([line, around, touching, passing].sort())
  await client.setBbox('s', 1, [8.6, 47.6, 8.7, 47.7])
  expect([...view.rows.keys()].sort()).toEqual([line, around].sort())
})

test('a row without geometry, or with an empty one, is in no box', async () => {
  await using world = await createWorld()
  const id = await world.put({ at: null, name: 'nowhere' })
  await world.admin`insert into features (org_id, geom) values ('a', st_geomfromtext('POINT EMPTY', 4326)),
    ('a', st_geomfromtext('GEOMETRYCOLLECTION EMPTY', 4326))`
  const { client, view } = await world.watch(alice, { bbox: EARTH })
  expect(view.rows.size).toBe(0)
  await world.admin`update features set name = 'still nowhere'`
  await world.barrier(client, alice)
  expect(JSON.stringify(client.frames)).not.toContain('nowhere')
  await world.admin`update features set geom = st_setsrid(st_makepoint(8.5, 47.5), 4326) where id = ${id}`
  await client.until(() => view.rows.has(id), 'it is somewhere')
  await world.admin`update features set geom = st_geomfromtext('POINT EMPTY', 4326) where id = ${id}`
  await client.until(() => !view.rows.has(id), 'it is nowhere again')
})

test('edges belong to the box, on all sides, for initial rows and for changes', async () => {
  await using world = await createWorld()
  const corners = [
    [8, 47],
    [9, 47],
    [8, 48],
    [9, 48],
    [8, 47.5],
    [8.5, 48],
  ] as const
  const early = await Promise.all(corners.map((at) => world.put({ at })))
  const { client, view } = await world.watch(alice)
  expect([...view.rows.keys()].sort()).toEqual([...early].sort())
  const late = await Promise.all(corners.map((at) => world.put({ at })))
  await client.until(() => late.every((id) => view.rows.has(id)), 'the late ones are there')
})

test('a box that is a point, and the poles', async () => {
  await using world = await createWorld()
  const here = await world.put({ at: [8.5, 47.5] })
  await world.put({ at: [8.5000001, 47.5] })
  const pole = await world.put({ at: [12, 90] })
  const { client, view } = await world.watch(alice, { bbox: [8.5, 47.5, 8.5, 47.5] })
  expect([...view.rows.keys()]).toEqual([here])
  await client.setBbox('s', 1, [-180, 89, 180, 90])
  expect([...view.rows.keys()]).toEqual([pole])
})

test('a table with geometry needs a box; the subscription ends without one', async () => {
  await using world = await createWorld()
  const client = await world.connect(alice)
  expect((await client.subscribe()).ended?.code).toBe('invalid')
})

test('I4: a change behind a box that was moved away and back', async () => {
  await using world = await createWorld()
  const ids = await Promise.all([8.6, 8.7, 8.8, 8.9].map((x) => world.put({ at: [x, 47.5] })))
  const { client, view } = await world.watch(alice)
  const west: Bbox = [8, 47, 8.5, 48]
  for (let round = 1; round <= 30; round++) {
    client.send({ type: 'bbox', sub: 's', seq: round * 2 - 1, bbox: west })
    // Some of these changes fall into the time between the two boxes.
    await world.admin`update features set size = ${round} where id = ${ids[round % 4]!}`
    client.send({ type: 'bbox', sub: 's', seq: round * 2, bbox: ZURICH })
    if (round % 3 === 0) await client.ping()
  }
  await client.until(() => view.complete === 60, 'the last box is complete')
  await world.untilTrue(client, view, alice)
})

test('I3: a row that the box has left is gone once, however often the box moves on', async () => {
  await using world = await createWorld()
  const id = await world.put({ org: 'a', at: [8.5, 47.5] })
  const { client, view } = await world.watch({ sub: 'alice', org_id: 'a' })
  expect([...view.rows.keys()]).toEqual([id])
  // The client itself fails over what is gone and not held.
  for (let seq = 1; seq <= 3; seq++) await client.setBbox('s', seq, [20 + seq, 20, 21 + seq, 21])
  expect(view.goneReceived).toBe(1)
  await client.setBbox('s', 4, ZURICH)
  expect([...view.rows.keys()]).toEqual([id])
})
