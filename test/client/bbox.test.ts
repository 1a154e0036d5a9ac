import { expect, test } from 'bun:test'
import { changesOf, connected } from './connected.ts'
import { BOX, FakeWorld, PLACES, place, placeId, settle, watch } from './fake-world.ts'

test('setBbox sends the box, applies what enters and leaves, and resolves when it is complete', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1), place(2)])
  const changes = changesOf(db)
  const fate = watch(db.setBbox([2, 2, 3, 3]))
  expect(world.socket.of('bbox')).toEqual([{ type: 'bbox', sub: 's1', seq: 1, bbox: [2, 2, 3, 3] }])
  await world.socket.say({ type: 'view', sub: 's1', gone: [placeId(1)] })
  await world.socket.say({ type: 'view', sub: 's1', rows: [place(3)] })
  expect(fate.settled).toBe(false)
  await world.socket.say({ type: 'view', sub: 's1', complete: 1, cursor: 'c2' })
  expect(fate.settled).toBe(true)
  expect(changes).toEqual([
    { upserts: [], gone: [placeId(1)] },
    { upserts: [place(3)], gone: [] },
  ])
})

test('a newer box supersedes an older one, which resolves along with it', async () => {
  const world = new FakeWorld()
  const db = await connected(world)
  const fates = [watch(db.setBbox([1, 1, 2, 2])), watch(db.setBbox([2, 2, 3, 3]))]
  expect(world.socket.of('bbox').map(({ seq }) => seq)).toEqual([1, 2])
  await world.socket.say({ type: 'view', sub: 's1', complete: 1 })
  expect(fates.map(({ settled }) => settled)).toEqual([false, false])
  await world.socket.say({ type: 'view', sub: 's1', complete: 2 })
  expect(fates.map(({ settled }) => settled)).toEqual([true, true])
})

test('the box that is already there resolves at once; the one on its way is not sent twice', async () => {
  const world = new FakeWorld()
  const db = await connected(world)
  await db.setBbox([...BOX])
  expect(world.socket.of('bbox')).toEqual([])
  const fates = [watch(db.setBbox([1, 1, 2, 2])), watch(db.setBbox([1, 1, 2, 2]))]
  expect(world.socket.of('bbox')).toHaveLength(1)
  await world.socket.say({ type: 'view', sub: 's1', complete: 1 })
  expect(fates.map(({ settled }) => settled)).toEqual([true, true])
})

test('what is no box, and any box for a table without geometry, rejects and leaves the socket alone', async () => {
  const world = new FakeWorld()
  const db = await connected(world)
  for (const wrong of [[1, 2, 3], [0, 5, 1, 4], [0, 0, 181, 1], [Number.NaN, 0, 1, 1], null, '1,2,3,4']) {
    const fate = watch(db.setBbox(wrong as unknown as typeof BOX))
    await settle()
    expect(fate.error).toMatchObject({ code: 'invalid' })
  }
  expect(world.socket.of('bbox')).toEqual([])
  const flat = new FakeWorld()
  const list = await connected(flat, [], { bbox: undefined }, { ...PLACES, geometryColumn: null })
  const fate = watch(list.setBbox([1, 1, 2, 2]))
  await settle()
  expect(fate.error).toMatchObject({ code: 'invalid' })
  expect(flat.socket.of('bbox')).toEqual([])
})

test('a box that crosses the antimeridian is a box', async () => {
  const world = new FakeWorld()
  const db = await connected(world)
  watch(db.setBbox([170, -10, -170, 10]))
  expect(world.socket.of('bbox')[0]!.bbox).toEqual([170, -10, -170, 10])
})

test('a box set without a connection is asked for on the next one, and not with the cursor of another box', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1)])
  await world.socket.drop(1006)
  const fate = watch(db.setBbox([2, 2, 3, 3]))
  await world.clock.advance(1_000)
  await world.socket.open()
  const [subscribe] = world.socket.of('subscribe')
  expect(subscribe).toEqual({ type: 'subscribe', sub: subscribe!.sub, bbox: [2, 2, 3, 3] })
  await world.socket.answer([place(2)])
  expect(fate.settled).toBe(true)
  expect([...db.rows.keys()]).toEqual([placeId(2)])
})

test('a box set while the next subscription is being answered follows it', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1)])
  await world.socket.drop(1006)
  await world.clock.advance(1_000)
  await world.socket.open()
  const fate = watch(db.setBbox([2, 2, 3, 3]))
  expect(world.socket.of('bbox')).toEqual([])
  await world.socket.answer([place(1)])
  expect(world.socket.of('bbox')).toMatchObject([{ seq: 1, bbox: [2, 2, 3, 3] }])
  expect(fate.settled).toBe(false)
  await world.socket.say({ type: 'view', sub: world.socket.sub, complete: 1 })
  expect(fate.settled).toBe(true)
})

test('a loss in the middle of a move starts from nothing, as no cursor fits; the move still resolves', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1)])
  const fate = watch(db.setBbox([2, 2, 3, 3]))
  await world.socket.say({ type: 'view', sub: 's1', gone: [placeId(1)], cursor: 'c-too-early' })
  await world.socket.drop(1006)
  watch(db.setBbox([...BOX]))
  await world.clock.advance(1_000)
  await world.socket.open()
  expect(world.socket.of('subscribe')[0]!.resume).toBeUndefined()
  await world.socket.answer([place(1)])
  expect(fate.settled).toBe(true)
  expect([...db.rows.keys()]).toEqual([placeId(1)])
})

test('a cursor that was true for the old box is not kept for the new one', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1)])
  watch(db.setBbox([2, 2, 3, 3]))
  await world.socket.say({ type: 'view', sub: 's1', rows: [place(1, 'renamed')], cursor: 'c-of-the-old-box' })
  await world.socket.say({ type: 'pong', cursors: { s1: 'c-of-the-old-box' } })
  await world.socket.drop(1006)
  await world.clock.advance(1_000)
  await world.socket.open()
  expect(world.socket.of('subscribe')[0]!.resume).toBeUndefined()
})

test('a box with too many rows rejects and ends the view; a smaller one starts it again', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1)])
  db.onError(() => {})
  const fate = watch(db.setBbox([-180, -90, 180, 90]))
  await world.socket.say({ type: 'ended', sub: 's1', code: 'too_many_rows', message: 'zoom in' })
  expect(fate.error).toMatchObject({ code: 'too_many_rows' })
  expect(db.rows.size).toBe(0)
  const smaller = watch(db.setBbox([2, 2, 3, 3]))
  expect(world.socket.of('subscribe')).toMatchObject([{}, { sub: 's2', bbox: [2, 2, 3, 3] }])
  await world.socket.answer([place(2)])
  expect(smaller.settled).toBe(true)
  expect(db.rows.size).toBe(1)
})

test('disconnect rejects those who wait for a box', async () => {
  const world = new FakeWorld()
  const db = await connected(world)
  const fate = watch(db.setBbox([2, 2, 3, 3]))
  await db.disconnect()
  await settle()
  expect(fate.error).toMatchObject({ code: 'disconnected' })
})
