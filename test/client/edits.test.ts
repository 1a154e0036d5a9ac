import { describe, expect, test } from 'bun:test'
import { PENDING_EDITS_MAX } from '../../client/write-queue.ts'
import type { Edit, EditOutcome, Row } from '../../src/wire/messages.ts'
import { changesOf, connected } from './connected.ts'
import { COUNTED, FakeWorld, PLACES, place, placeId, settle, watch } from './fake-world.ts'

const applied = (id: string): EditOutcome => ({ status: 'applied', id })
const rejected: EditOutcome = { status: 'rejected', code: 'forbidden', message: 'no' }

/** The batches that the newest socket has sent. */
function writes(world: FakeWorld) {
  return world.socket.of('write')
}

function lastBatch(world: FakeWorld): string {
  return writes(world).at(-1)!.batch
}

async function outcome(world: FakeWorld, ...edits: EditOutcome[]): Promise<string> {
  const batch = lastBatch(world)
  await world.socket.say({ type: 'outcome', batch, edits })
  return batch
}

describe('an update', () => {
  test('shows at once, resolves on its outcome, and gives way to the server when settled', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)], { table: 'places' })
    const changes = changesOf(db)
    const counts: number[] = []
    db.onPendingChange((count) => counts.push(count))
    const before = db.rows.get(placeId(1))
    const fate = watch(db.update(placeId(1), { name: 'new' }))
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'new'))
    expect(db.rows.get(placeId(1))).not.toBe(before)
    expect(db.pendingCount).toBe(1)
    await settle()
    expect(writes(world)).toMatchObject([
      { table: 'places', edits: [{ op: 'update', id: placeId(1), columns: { name: 'new' } }] },
    ])
    const batch = await outcome(world, applied(placeId(1)))
    expect(fate).toEqual({ settled: true, value: undefined })
    expect(counts).toEqual([1, 0])
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'new'))
    await world.socket.say({
      type: 'view',
      sub: 's1',
      rows: [place(1, 'new', 'by trigger')],
      settled: [batch],
    })
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'new', 'by trigger'))
    expect(changes).toEqual([
      { upserts: [place(1, 'new')], gone: [] },
      { upserts: [place(1, 'new', 'by trigger')], gone: [] },
    ])
  })

  test('that the server changed nothing about is told once', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    const changes = changesOf(db)
    watch(db.update(placeId(1), { name: 'new' }))
    await settle()
    const batch = await outcome(world, applied(placeId(1)))
    const { id, name, kind, geom } = place(1, 'new')
    await world.socket.say({
      type: 'view',
      sub: 's1',
      rows: [{ geom, name, kind, id } as Row],
      settled: [batch],
    })
    expect(changes).toHaveLength(1)
  })

  test('is taken back when refused, with the code', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    const changes = changesOf(db)
    const fate = watch(db.update(placeId(1), { name: 'new' }))
    await settle()
    await outcome(world, rejected)
    expect(fate.error).toMatchObject({ name: 'DatumError', code: 'forbidden', message: 'no' })
    expect(db.rows.get(placeId(1))).toEqual(place(1))
    expect(changes).toEqual([
      { upserts: [place(1, 'new')], gone: [] },
      { upserts: [place(1)], gone: [] },
    ])
    expect(db.pendingCount).toBe(0)
  })

  test('stays over what others change meanwhile, and hides only its own columns', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    watch(db.update(placeId(1), { name: 'mine' }))
    await world.socket.say({ type: 'view', sub: 's1', rows: [place(1, 'theirs', 'park')] })
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'mine', 'park'))
    await outcome(world, rejected)
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'theirs', 'park'))
  })

  test('of a row that disappears shows nothing, and shows again with the row', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    watch(db.update(placeId(1), { name: 'mine' }))
    await world.socket.say({ type: 'view', sub: 's1', gone: [placeId(1)] })
    expect(db.rows.size).toBe(0)
    await world.socket.say({ type: 'view', sub: 's1', rows: [place(1)] })
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'mine'))
  })

  test('with a whole row does not try to change the id', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    watch(db.update(placeId(1), { ...db.rows.get(placeId(1)), name: 'x' }))
    await settle()
    expect(writes(world)[0]!.edits[0]).toEqual({
      op: 'update',
      id: placeId(1),
      columns: { name: 'x', kind: null, geom: { type: 'Point', coordinates: [1, 1] } },
    })
  })

  test('finds its row by any spelling of the id', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    watch(db.update(`{${placeId(1).toUpperCase()}}`, { name: 'x' }))
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'x'))
    const counted = new FakeWorld()
    const numbers = await connected(counted, [{ ...place(1), id: 7 }], {}, COUNTED)
    watch(numbers.update(7, { name: 'x' }))
    watch(numbers.update(7n, { kind: 'y' }))
    watch(numbers.update('007', { name: 'z' }))
    expect(numbers.rows.get('7')).toEqual({ ...place(1, 'z', 'y'), id: 7 })
  })
})

describe('two edits of one row stack', () => {
  test('and the first one refused takes only itself back', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    const first = watch(db.update(placeId(1), { name: 'A', kind: 'a' }))
    const second = watch(db.update(placeId(1), { name: 'B' }))
    await settle()
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'B', 'a'))
    expect(writes(world)).toHaveLength(1)
    await outcome(world, rejected, applied(placeId(1)))
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'B'))
    expect(first.error).toMatchObject({ code: 'forbidden' })
    expect(second.value).toBeUndefined()
    expect(second.settled).toBe(true)
  })

  test('over several batches: the earlier one settling does not show through the later one', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    const changes = changesOf(db)
    watch(db.update(placeId(1), { name: 'A' }))
    await settle()
    watch(db.update(placeId(1), { name: 'B' }))
    await settle()
    expect(writes(world)).toHaveLength(1)
    const first = await outcome(world, applied(placeId(1)))
    expect(writes(world)).toHaveLength(2)
    await world.socket.say({ type: 'view', sub: 's1', rows: [place(1, 'A')], settled: [first] })
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'B'))
    const second = await outcome(world, applied(placeId(1)))
    await world.socket.say({ type: 'view', sub: 's1', rows: [place(1, 'B')], settled: [second] })
    expect(changes.map(({ upserts }) => upserts[0]?.name)).toEqual(['A', 'B'])
  })

  test('delete after update after insert', async () => {
    const world = new FakeWorld()
    const db = await connected(world)
    const changes = changesOf(db)
    const id = placeId(9)
    watch(db.insert({ id, name: 'x' }))
    watch(db.update(id, { name: 'y' }))
    expect(db.rows.get(id)).toEqual({ id, name: 'y', kind: null, geom: null })
    watch(db.delete(id))
    expect(db.rows.has(id)).toBe(false)
    await settle()
    expect(writes(world)[0]!.edits.map(({ op }) => op)).toEqual(['insert', 'update', 'delete'])
    expect(changes.at(-1)).toEqual({ upserts: [], gone: [id] })
    await outcome(world, applied(id), applied(id), rejected)
    expect(db.rows.get(id)?.name).toBe('y')
  })
})

describe('an insert', () => {
  test('gets a UUID here and resolves with it', async () => {
    const world = new FakeWorld()
    const db = await connected(world)
    const geom = { type: 'Point', coordinates: [1, 2] }
    const fate = watch(db.insert({ name: 'x', geom }))
    const id = [...db.rows.keys()][0]!
    expect(db.rows.get(id)).toEqual({ id, name: 'x', kind: null, geom })
    await settle()
    expect(writes(world)[0]!.edits).toEqual([{ op: 'insert', columns: { id, name: 'x', geom } }])
    const batch = await outcome(world, applied(id))
    expect(fate.value).toBe(id)
    await world.socket.say({ type: 'view', sub: 's1', settled: [batch] })
    // The server took it, but it is not in this view: outside the box, say.
    expect(db.rows.size).toBe(0)
  })

  test('keeps a UUID that is given, as Postgres prints it', async () => {
    const world = new FakeWorld()
    const db = await connected(world)
    watch(db.insert({ id: placeId(5).toUpperCase(), name: 'x' }))
    expect(db.rows.get(placeId(5))).toMatchObject({ id: placeId(5) })
  })

  test('whose id the server gives shows under a local key until then, for later edits too', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [], {}, COUNTED)
    const changes = changesOf(db)
    const inserting = watch(db.insert({ name: 'x' }))
    const key = [...db.rows.keys()][0]!
    expect(key).toStartWith('local:')
    expect(db.rows.get(key)).toMatchObject({ id: key, name: 'x' })
    const updating = watch(db.update(key, { name: 'y' }))
    const deleting = watch(db.delete(key))
    await settle()
    // What builds on the insert waits for its id.
    expect(writes(world)).toMatchObject([{ edits: [{ op: 'insert', columns: { name: 'x' } }] }])
    expect(Object.keys((writes(world)[0]!.edits[0] as Extract<Edit, { op: 'insert' }>).columns)).toEqual([
      'name',
    ])
    await outcome(world, applied('41'))
    expect(inserting.value).toBe('41')
    expect(writes(world)[1]!.edits).toEqual([
      { op: 'update', id: '41', columns: { name: 'y' } },
      { op: 'delete', id: '41' },
    ])
    await outcome(world, applied('41'), rejected)
    expect(updating.settled).toBe(true)
    expect(deleting.error).toMatchObject({ code: 'forbidden' })
    expect(db.rows.get('41')).toEqual({ id: 41, name: 'y', kind: null, geom: null })
    expect(db.rows.size).toBe(1)
    watch(db.update(key, { kind: 'later' }))
    expect(db.rows.get('41')?.kind).toBe('later')
    expect(changes.flatMap(({ gone }) => gone)).toEqual([key])
  })

  test('that is refused takes along what builds on it', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [], {}, COUNTED)
    const inserting = watch(db.insert({ name: 'x' }))
    const key = [...db.rows.keys()][0]!
    const updating = watch(db.update(key, { name: 'y' }))
    await settle()
    await outcome(world, rejected)
    expect(inserting.error).toMatchObject({ code: 'forbidden' })
    expect(updating.error).toMatchObject({ code: 'not_found' })
    const late = watch(db.update(key, { name: 'z' }))
    await settle()
    expect(late.error).toMatchObject({ code: 'not_found' })
    expect([db.rows.size, db.pendingCount, writes(world).length]).toEqual([0, 0, 1])
  })

  test('that the server echoes before it settles shows the server’s row', async () => {
    const world = new FakeWorld()
    const db = await connected(world)
    const id = placeId(3)
    watch(db.insert({ id, name: 'x' }))
    await world.socket.say({ type: 'view', sub: 's1', rows: [place(3, 'x', 'by default')] })
    expect(db.rows.get(id)).toEqual(place(3, 'x', 'by default'))
  })
})

describe('columns', () => {
  test('are copied, and get the form that the wire has', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    const geom = { type: 'Point', coordinates: [5, 5] }
    watch(
      db.update(placeId(1), {
        geom,
        at: new Date(0),
        big: 12345678901234567890n,
        ratio: Number.NaN,
        left_out: undefined,
      } as object),
    )
    geom.coordinates[0] = 6
    await settle()
    expect((writes(world)[0]!.edits[0] as Extract<Edit, { op: 'update' }>).columns).toEqual({
      geom: { type: 'Point', coordinates: [5, 5] },
      at: '1970-01-01T00:00:00.000Z',
      big: '12345678901234567890',
      ratio: 'NaN',
    })
  })

  test('that have no JSON form are refused without a trace', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    const cycle: Record<string, unknown> = {}
    cycle.self = cycle
    const deep = JSON.parse(`${'{"a":'.repeat(70)}1${'}'.repeat(70)}`)
    for (const wrong of [cycle, deep, null, undefined, 'x', [], 5]) {
      const fates = [watch(db.insert(wrong as object)), watch(db.update(placeId(1), wrong as object))]
      await settle()
      for (const { error } of fates) expect(error).toMatchObject({ code: 'invalid' })
    }
    const fate = watch(db.delete({} as string))
    await settle()
    expect(fate.error).toMatchObject({ code: 'invalid' })
    expect([db.pendingCount, writes(world).length]).toEqual([0, 0])
  })

  test('and ids may have the names of Object.prototype', async () => {
    const world = new FakeWorld()
    const table = { ...PLACES, idType: 'text' as const, idColumn: 'constructor', columns: [] }
    const odd = (id: string, value: number): Row => JSON.parse(`{"constructor":"${id}","__proto__":${value}}`)
    const db = await connected(world, [odd('__proto__', 1), odd('toString', 1)], {}, table)
    expect([...db.rows.keys()]).toEqual(['__proto__', 'toString'])
    const fate = watch(db.update('__proto__', JSON.parse('{"__proto__":2}')))
    await settle()
    expect(JSON.stringify(writes(world)[0]!.edits)).toBe(
      '[{"op":"update","id":"__proto__","columns":{"__proto__":2}}]',
    )
    expect(JSON.stringify(db.rows.get('__proto__'))).toBe('{"constructor":"__proto__","__proto__":2}')
    watch(db.insert(JSON.parse('{"constructor":"valueOf","__proto__":3}')))
    expect(JSON.stringify(db.rows.get('valueOf'))).toBe('{"constructor":"valueOf","__proto__":3}')
    await outcome(world, rejected)
    expect(fate.error).toMatchObject({ code: 'forbidden' })
    expect(JSON.stringify(db.rows.get('__proto__'))).toBe('{"constructor":"__proto__","__proto__":1}')
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
  })
})

describe('across sockets', () => {
  test('edits made without a connection show at once and are sent after the next answer', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    await world.socket.drop(1006)
    const fate = watch(db.update(placeId(1), { name: 'offline' }))
    watch(db.update(placeId(1), { kind: 'x' }))
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'offline', 'x'))
    await world.clock.advance(1_000)
    await world.socket.open()
    expect(writes(world)).toEqual([])
    await world.socket.answer([place(1)])
    expect(writes(world)).toHaveLength(1)
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'offline', 'x'))
    await outcome(world, applied(placeId(1)), applied(placeId(1)))
    expect(fate.settled).toBe(true)
  })

  test('a batch without an outcome is sent again, the same in every byte, before later edits', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    const fate = watch(db.update(placeId(1), { name: 'A' }))
    await settle()
    const sent = writes(world)[0]!
    await world.socket.drop(1006)
    watch(db.update(placeId(1), { name: 'B' }))
    await world.clock.advance(1_000)
    await world.socket.serve([place(1)])
    expect(writes(world)).toEqual([sent])
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'B'))
    await outcome(world, applied(placeId(1)))
    expect(fate.settled).toBe(true)
    expect(writes(world)).toHaveLength(2)
    await world.socket.say({
      type: 'view',
      sub: world.socket.sub,
      rows: [place(1, 'A')],
      settled: [sent.batch],
    })
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'B'))
  })

  test.each([true, false])(
    'an edit applied before the loss is settled by the next complete view (resumed: %p)',
    async (resumed) => {
      const world = new FakeWorld()
      const db = await connected(world, [place(1), place(2)])
      watch(db.update(placeId(1), { name: 'mine' }))
      watch(db.update(placeId(2), { name: 'mine' }))
      await settle()
      await outcome(world, applied(placeId(1)), applied(placeId(2)))
      await world.socket.drop(1006)
      const changes = changesOf(db)
      await world.clock.advance(1_000)
      await world.socket.open()
      const { sub } = world.socket
      await world.socket.say({ type: 'subscribed', sub, table: PLACES, resumed })
      expect(db.rows.get(placeId(1))).toEqual(place(1, 'mine'))
      // Somebody has renamed the first one again meanwhile; the second one has left the view.
      const gone = resumed ? [placeId(2)] : []
      await world.socket.say({ type: 'view', sub, rows: [place(1, 'theirs')], gone, complete: 0 })
      expect(changes).toEqual([{ upserts: [place(1, 'theirs')], gone: [placeId(2)] }])
    },
  )

  test('settled that comes while a new view is being filled waits for that view', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    watch(db.update(placeId(1), { name: 'A' }))
    await settle()
    await world.socket.drop(1006)
    await world.clock.advance(1_000)
    await world.socket.open()
    const { sub } = world.socket
    await world.socket.say({ type: 'subscribed', sub, table: PLACES, resumed: false })
    const batch = await outcome(world, applied(placeId(1)))
    const changes = changesOf(db)
    await world.socket.say({ type: 'view', sub, rows: [place(1, 'A')], settled: [batch] })
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'A'))
    await world.socket.say({ type: 'view', sub, complete: 0 })
    expect(changes).toEqual([])
    await world.socket.say({ type: 'view', sub, rows: [place(1, 'B')] })
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'B'))
  })

  test('settled that overtakes the outcome is not forgotten', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    watch(db.update(placeId(1), { name: 'A' }))
    await settle()
    const batch = lastBatch(world)
    await world.socket.say({ type: 'view', sub: 's1', rows: [place(1, 'A')], settled: [batch] })
    await outcome(world, applied(placeId(1)))
    await world.socket.say({ type: 'view', sub: 's1', rows: [place(1, 'B')] })
    expect(db.rows.get(placeId(1))).toEqual(place(1, 'B'))
  })

  test('with the subscription ended, an outcome alone settles: nothing else will', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    db.onError(() => {})
    const fate = watch(db.insert({ id: placeId(2) }))
    await world.socket.say({ type: 'ended', sub: 's1', code: 'policy_error', message: '' })
    expect([...db.rows.keys()]).toEqual([placeId(2)])
    await outcome(world, applied(placeId(2)))
    expect(fate.value).toBe(placeId(2))
    expect(db.rows.size).toBe(0)
  })

  test('disconnect rejects what is pending and takes it back', async () => {
    const world = new FakeWorld()
    const db = await connected(world, [place(1)])
    const underWay = watch(db.update(placeId(1), { name: 'A' }))
    await settle()
    const waiting = watch(db.insert({ name: 'B' }))
    const counts: number[] = []
    db.onPendingChange((count) => counts.push(count))
    await db.disconnect()
    await settle()
    for (const { error } of [underWay, waiting]) expect(error).toMatchObject({ code: 'disconnected' })
    expect([...db.rows.values()]).toEqual([place(1)])
    expect(counts).toEqual([0])
  })
})

test('a database that is away has the same batch again later, and nothing overtakes it', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1)])
  const fate = watch(db.update(placeId(1), { name: 'A' }))
  await settle()
  watch(db.update(placeId(1), { name: 'B' }))
  const sent = writes(world)[0]!
  await world.socket.say({ type: 'unavailable', batch: sent.batch, retryAfterMs: 2_000 })
  await world.clock.advance(1_999)
  expect(writes(world)).toEqual([sent])
  await world.clock.advance(1_000)
  expect(writes(world)).toEqual([sent, sent])
  expect(fate.settled).toBe(false)
  await outcome(world, applied(placeId(1)))
  expect(fate.settled).toBe(true)
  expect(writes(world)).toHaveLength(3)
})

test('a batch has at most 500 edits and fits into a frame; an edit that does not is refused', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1)])
  for (let n = 0; n < 501; n++) watch(db.update(placeId(1), { name: `n${n}` }))
  await settle()
  expect(writes(world)[0]!.edits).toHaveLength(500)
  const tooLarge = watch(db.update(placeId(1), { name: '\u6771'.repeat(1_400_000) }))
  await settle()
  expect(tooLarge.error).toMatchObject({ code: 'too_large' })
  const large = '\u6771'.repeat(900_000)
  watch(db.update(placeId(1), { name: large }))
  watch(db.update(placeId(1), { name: large }))
  await outcome(world, ...Array<EditOutcome>(500).fill(applied(placeId(1))))
  expect(writes(world)[1]!.edits).toHaveLength(2)
  await outcome(world, applied(placeId(1)), applied(placeId(1)))
  expect(writes(world)[2]!.edits).toHaveLength(1)
})

test('an outcome that says too little rejects what it leaves out', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1)])
  const fates = [watch(db.update(placeId(1), { name: 'A' })), watch(db.update(placeId(1), { name: 'B' }))]
  await settle()
  await outcome(world, applied(placeId(1)))
  expect(fates[0]!.error).toBeUndefined()
  expect(fates[1]!.error).toMatchObject({ code: 'error' })
})

test('the queue is bounded', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1)])
  await world.socket.drop(1006)
  for (let n = 0; n < PENDING_EDITS_MAX; n++) watch(db.delete(placeId(1000 + n)))
  const fate = watch(db.delete(placeId(1)))
  await settle()
  expect(fate.error).toMatchObject({ code: 'queue_full' })
  expect(db.rows.has(placeId(1))).toBe(true)
  expect(db.pendingCount).toBe(PENDING_EDITS_MAX)
})

test('a listener that edits does not reorder what the others see, and one that unsubscribed sees nothing', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1)])
  const seen: string[] = []
  db.onChange(({ upserts }) => {
    if (upserts[0]?.name === 'A') watch(db.update(placeId(1), { name: 'B' }))
  })
  const unsubscribe = db.onChange(({ upserts }) => seen.push(String(upserts[0]?.name)))
  watch(db.update(placeId(1), { name: 'A' }))
  expect(seen).toEqual(['A', 'B'])
  unsubscribe()
  watch(db.update(placeId(1), { name: 'C' }))
  expect(seen).toEqual(['A', 'B'])
})
