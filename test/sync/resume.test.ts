/** Coming back with a cursor: what happened while away, no more and no less, and no oracle. Invariants 3, 4 and 5. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { createWorld, onlyOrg, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import type { View } from '../support/wire-client.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

test('I5: changes, arrivals and deletions while away, and nothing that did not change', async () => {
  await using world = await createWorld()
  const same = await Promise.all([1, 2, 3, 4].map(() => world.put({ org: 'a', name: 'same' })))
  const changed = await world.put({ org: 'a', name: 'before' })
  const deleted = await world.put({ org: 'a' })
  const moved = await world.put({ org: 'a' })
  const taken = await world.put({ org: 'a' })
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  client.kill()
  await client.untilClosed()
  await world.admin`update features set name = 'after' where id = ${changed}`
  await world.admin`delete from features where id = ${deleted}`
  await world.admin`update features set geom = st_setsrid(st_makepoint(20, 20), 4326) where id = ${moved}`
  await world.admin`update features set org_id = 'b' where id = ${taken}`
  const arrived = await world.put({ org: 'a' })
  const again = await world.connect(alice, { allowed: onlyOrg('a') })
  const resumed = await again.resume(view, { bbox: ZURICH })
  expect(resumed.resumed).toBe(true)
  expect([...resumed.rows.keys()].sort()).toEqual([...same, changed, arrived].sort())
  await world.untilTrue(again, resumed, alice)
  // A change may be handed out twice, but what did not change is not sent.
  const sent = JSON.stringify(again.frames)
  for (const id of same) expect(sent).not.toContain(id)
  expect(resumed.goneReceived).toBe(3)
  await world.barrier(again, alice)
})

test('I5: nothing happened: no row is sent', async () => {
  await using world = await createWorld()
  for (let n = 0; n < 50; n++) await world.put({ org: 'a' })
  const { client, view } = await world.watch(alice)
  // What was written just before may come twice, so it is let pass before counting.
  await world.barrier(client, alice)
  client.kill()
  const again = await world.connect(alice)
  const resumed = await again.resume(view, { bbox: ZURICH })
  expect({ resumed: resumed.resumed, rows: resumed.rowsReceived, gone: resumed.goneReceived }).toEqual({
    resumed: true,
    rows: 0,
    gone: 0,
  })
  expect(resumed.cursor).toBeString()
})

test('I5: a chain of resumes, with the cursor of a pong and of live views', async () => {
  await using world = await createWorld()
  let { client, view } = await world.watch(alice)
  for (let round = 0; round < 8; round++) {
    const id = await world.put({ org: 'a', name: `live ${round}` })
    await client.until(() => view.rows.has(id), 'live')
    if (round % 2 === 0) view.cursor = (await client.ping()).s ?? view.cursor
    client.kill()
    await world.put({ org: 'a', name: `away ${round}` })
    await world.admin`delete from features where id = (select id from features order by random() limit 1)`
    client = await world.connect(alice)
    view = await client.resume(view, { bbox: ZURICH })
    await world.untilTrue(client, view, alice)
  }
})

test('I5: another box than before', async () => {
  await using world = await createWorld()
  const west = await world.put({ at: [8.1, 47.5] })
  const middle = await world.put({ at: [8.5, 47.5] })
  const east = await world.put({ at: [8.9, 47.5] })
  const { client, view } = await world.watch(alice, { bbox: [8, 47, 8.6, 48] })
  expect([...view.rows.keys()].sort()).toEqual([west, middle].sort())
  client.kill()
  const again = await world.connect(alice)
  const resumed = await again.resume(view, { bbox: [8.4, 47, 9, 48] })
  expect([...resumed.rows.keys()].sort()).toEqual([middle, east].sort())
  await world.untilTrue(again, resumed, alice, [8.4, 47, 9, 48])
})

test('I6: other claims than before: equal to a fresh view under the new ones', async () => {
  await using world = await createWorld()
  await world.put({ org: 'a' })
  const ofB = await world.put({ org: 'b' })
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  client.kill()
  const asB = { sub: 'alice', org_id: 'b' }
  const again = await world.connect(asB, { allowed: onlyOrg('b') })
  const resumed = await again.resume(view, { bbox: ZURICH })
  expect([...resumed.rows.keys()]).toEqual([ofB])
  await world.barrier(again, asB)
})

test('I5: a client that lost some rows, or a part of its ids, gets them again', async () => {
  await using world = await createWorld()
  const ids = await Promise.all([1, 2, 3, 4, 5, 6].map(() => world.put({ org: 'a' })))
  const { client, view } = await world.watch(alice)
  client.kill()
  for (const id of ids.slice(0, 3)) view.rows.delete(id)
  const again = await world.connect(alice)
  const resumed = await again.resume(view, { bbox: ZURICH })
  expect([...resumed.rows.keys()].sort()).toEqual([...ids].sort())
})

test('I5: a cursor that this server cannot have made gives a fresh view', async () => {
  await using world = await createWorld()
  const id = await world.put({ org: 'a' })
  const { client, view } = await world.watch(alice)
  const real = view.cursor!
  const cursors = [
    '',
    'x',
    '0:0:',
    '1:1:',
    '999999999999:999999999999:',
    '10:5:',
    '-1:2:',
    "'; drop table features; --",
    real.replace(/^./, (digit) => (digit === '0' ? '1' : '0')),
    `${real}9999999999`,
    `${real}\u0000`,
    real.split('').reverse().join(''),
    '9'.repeat(5_000),
    '18446744073709551615:18446744073709551616:',
  ]
  for (const cursor of cursors) {
    const again = await world.connect(alice)
    const held = { ...view, cursor, rows: new Map(view.rows) } as View
    const resumed = await again.resume(held, { bbox: ZURICH })
    expect([...resumed.rows.keys()]).toEqual([id])
    await world.barrier(again, alice)
    await again.close()
  }
  await world.barrier(client, alice)
})

test('I3: ids that a client only claims to hold are answered alike, whether their rows exist invisibly or not', async () => {
  await using world = await createWorld()
  const own = await world.put({ org: 'a' })
  const foreignOld = await world.put({ org: 'b' })
  const { client, view } = await world.watch(alice)
  client.kill()
  const foreignNew = await world.put({ org: 'b' })
  await world.admin`update features set name = 'changed' where org_id = 'b'`
  const deletedForeign = await world.put({ org: 'b' })
  await world.admin`delete from features where id = ${deletedForeign}`
  const never = [crypto.randomUUID(), crypto.randomUUID()]
  const claimed = [foreignOld, foreignNew, deletedForeign, ...never, 'nonsense', '']
  const fates = new Map<string, string>()
  for (const id of claimed) {
    const again = await world.connect(alice, { allowed: onlyOrg('a') })
    const held = { ...view, rows: new Map([...view.rows, [id, {}]]) } as View
    const resumed = await again.resume(held, { bbox: ZURICH })
    fates.set(
      id,
      `${resumed.resumed} ${resumed.rows.has(id)} ${resumed.goneReceived} ${resumed.rowsReceived}`,
    )
    expect(resumed.rows.has(own)).toBe(true)
    // A later life of the row must not tell either.
    await world.admin`update features set size = coalesce(size, 0) + 1 where org_id = 'b'`
    await world.barrier(again, alice)
    await again.close()
  }
  expect(new Set(claimed.map((id) => fates.get(id))).size).toBe(1)
  expect(fates.get(never[0]!)).toContain('false')
})

test('I5: a long absence with many changes equals a fresh view', async () => {
  await using world = await createWorld()
  await world.admin`
    insert into features (org_id, size, geom)
    select case when n % 2 = 0 then 'a' else 'b' end, n, st_setsrid(st_makepoint(7.5 + 2 * random(), 47.5), 4326)
    from generate_series(1, 4000) n`
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  client.kill()
  await world.admin`update features set org_id = case when org_id = 'a' then 'b' else 'a' end where size % 3 = 0`
  await world.admin`delete from features where size % 5 = 0`
  await world.admin`update features set geom = st_setsrid(st_makepoint(7.5 + 2 * random(), 47.5), 4326) where size % 7 = 0`
  const again = await world.connect(alice, { allowed: onlyOrg('a') })
  const resumed = await again.resume(view, { bbox: ZURICH })
  await world.untilTrue(again, resumed, alice)
})

test('I5: a log that was pruned past the cursor gives a fresh view', async () => {
  await using world = await createWorld()
  const [kept, deleted] = [await world.put({ org: 'a' }), await world.put({ org: 'a' })]
  const { client, view } = await world.watch(alice)
  client.kill()
  await world.admin`delete from features where id = ${deleted}`
  // Which rows are in view can be compared without the log; that one is another now cannot.
  await world.admin`update features set size = 7 where id = ${kept}`
  // As if hours had gone by.
  await world.admin`
    insert into datum.tick (at, oldest_xid) values (now() - interval '2 hours', pg_snapshot_xmax(pg_current_snapshot()))`
  await world.admin`select datum.prune(interval '1 hour', interval '1 day')`
  // The server that it left remembers; another one does not.
  const again = await world.connect(alice, { server: await world.addServer() })
  const resumed = await again.resume(view, { bbox: ZURICH })
  expect(resumed.resumed).toBe(false)
  expect([...resumed.rows.values()]).toMatchObject([{ id: kept, size: 7 }])
  await world.barrier(again, alice)
})

test('I5: TRUNCATE while away', async () => {
  await using world = await createWorld()
  for (let n = 0; n < 5; n++) await world.put({ org: 'a' })
  const { client, view } = await world.watch(alice)
  client.kill()
  await world.admin`truncate features`
  const again = await world.connect(alice)
  expect((await again.resume(view, { bbox: ZURICH })).rows.size).toBe(0)
  await world.barrier(again, alice)
})

test('I5: a box moved at once after a resume', async () => {
  await using world = await createWorld()
  const id = await world.put({ org: 'a', name: 'before', at: [8.9, 47.5] })
  const { client, view } = await world.watch(alice)
  await world.barrier(client, alice)
  client.kill()
  await world.admin`update features set name = 'after' where id = ${id}`
  const again = await world.connect(alice)
  // The first box does not hold the row, the second does, and there is no time between them to find out.
  const resumed = again.startResume(view, { bbox: [8, 47, 8.5, 48] })
  await again.setBbox('s', 1, ZURICH)
  expect(resumed.rows.get(id)?.name).toBe('after')
})

test('I5: without the list of what is held, where the server remembers', async () => {
  await using world = await createWorld()
  const kept = await Promise.all([1, 2, 3].map(() => world.put({ org: 'a', name: 'same' })))
  const deleted = await world.put({ org: 'a' })
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  await world.barrier(client, alice)
  client.kill()
  await client.untilClosed()
  await world.admin`delete from features where id = ${deleted}`
  const arrived = await world.put({ org: 'a' })
  await world.put({ org: 'b' })
  // Twice: what is remembered stays for others who saw the same.
  for (let time = 0; time < 2; time++) {
    const again = await world.connect(alice, { allowed: onlyOrg('a') })
    const resumed = again.startShortResume(structuredClone(view), { bbox: ZURICH })
    await again.until(() => resumed.complete >= 0, 'resumed')
    expect({ resumed: resumed.resumed, ended: resumed.ended }).toEqual({ resumed: true, ended: null })
    expect(resumed.rows.has(deleted)).toBe(false)
    for (const id of kept.slice(time)) expect(JSON.stringify(again.frames)).not.toContain(id)
    expect([...resumed.rows.keys()]).toEqual(expect.arrayContaining([...kept.slice(time), arrived]))
    await world.untilTrue(again, resumed, alice)
    // What it never listed, it is told of all the same.
    await world.admin`delete from features where id = ${kept[time]!}`
    await again.until(() => !resumed.rows.has(kept[time]!), 'a later deletion')
    await again.close()
  }
})

test('I3: a cursor without a list says nothing to who was not given it: other claims, another box, another server', async () => {
  await using world = await createWorld()
  for (let n = 0; n < 3; n++) await world.put({ org: 'a' })
  const { client, view } = await world.watch(alice)
  await world.barrier(client, alice)
  client.kill()
  await client.untilClosed()
  await world.admin`delete from features`
  const other = await world.addServer()
  const attempts = [
    { claims: { sub: 'bob', org_id: 'b' }, bbox: ZURICH },
    { claims: alice, bbox: [8, 47, 8.9, 48] as const },
    { claims: alice, bbox: ZURICH, server: other },
    {
      claims: alice,
      bbox: ZURICH,
      cursor: view.cursor!.slice(0, -1) + (view.cursor!.endsWith('0') ? '1' : '0'),
    },
  ]
  for (const { claims, bbox, server = world.server, cursor = view.cursor } of attempts) {
    const again = await world.connect(claims, { server })
    const resumed = again.startShortResume({ ...view, cursor, rows: new Map(view.rows) }, { bbox })
    await again.until(() => resumed.complete >= 0 || resumed.ended !== null, 'an answer')
    expect(resumed.ended?.code).toBe('held_needed')
    expect(resumed.goneReceived).toBe(0)
    await again.close()
  }
})

test('I3: rows that are claimed with a cursor that was really given are not believed', async () => {
  await using world = await createWorld()
  await world.put({ org: 'a' })
  const hidden = await world.put({ org: 'b' })
  const { client, view } = await world.watch(alice)
  await world.barrier(client, alice)
  client.kill()
  const again = await world.connect(alice)
  const resumed = await again.resume(
    { ...view, rows: new Map([...view.rows, [hidden, { id: hidden }]]) },
    { bbox: ZURICH },
  )
  // Told to be gone at once, as anything that is not there; so its next change tells nothing.
  expect(resumed.rows.has(hidden)).toBe(false)
  const told = again.frames.length
  await world.admin`update features set size = 1 where id = ${hidden}`
  await world.barrier(again, alice)
  expect(JSON.stringify(again.frames.slice(told))).not.toContain(hidden)
})
