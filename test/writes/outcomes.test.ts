/** What becomes of edits: each has one outcome, decided by the policies. Invariants 7, 8 and 9. */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { EDITS_PER_BATCH_MAX } from '../../src/wire/limits.ts'
import type { Edit, EditOutcome } from '../../src/wire/messages.ts'
import { createWorld, onlyOrg, point, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const bob = { sub: 'bob', org_id: 'b' }
const codes = (edits: readonly EditOutcome[]) =>
  edits.map((edit) => (edit.status === 'applied' ? 'applied' : edit.code))

test('I7: insert, update and delete are applied, shown and settled', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  const onlooker = await world.watch(alice)
  const id = crypto.randomUUID()
  const inserted = await client.write([
    { op: 'insert', columns: { id, org_id: 'a', name: 'new', geom: point(8.5, 47.5) } },
  ])
  expect(inserted).toEqual({ type: 'outcome', batch: inserted.batch, edits: [{ status: 'applied', id }] })
  await client.until(() => view.settled.has(inserted.batch), 'settled')
  expect(view.rows.get(id)).toMatchObject({ name: 'new', geom: point(8.5, 47.5) })
  await onlooker.client.until(() => onlooker.view.rows.has(id), 'the other sees it')

  const updated = await client.write([{ op: 'update', id, columns: { name: 'renamed' } }])
  await client.until(() => view.settled.has(updated.batch), 'settled')
  expect(view.rows.get(id)?.name).toBe('renamed')

  const deleted = await client.write([{ op: 'delete', id }])
  expect(deleted.edits).toEqual([{ status: 'applied', id }])
  await client.until(() => view.settled.has(deleted.batch), 'settled')
  expect(view.rows.has(id)).toBe(false)
  await onlooker.client.until(() => !onlooker.view.rows.has(id), 'the other sees it gone')
})

test('settled comes not before the effect, and also when there is no effect in the view', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  const id = crypto.randomUUID()
  const outside = await client.write([{ op: 'insert', columns: { id, org_id: 'a', geom: point(50, 50) } }])
  await client.until(() => view.settled.has(outside.batch), 'settled outside of the box')
  const same = await client.write([{ op: 'update', id, columns: { org_id: 'a' } }])
  await client.until(() => view.settled.has(same.batch), 'settled without a change')
  const many = await Promise.all(
    Array.from({ length: 20 }, (_, size) =>
      client.write([{ op: 'insert', columns: { org_id: 'a', size, geom: point(8.5, 47.5) } }]),
    ),
  )
  await client.until(() => many.every(({ batch }) => view.settled.has(batch)), 'all settled')
  for (const frame of client.frames) if (frame.type === 'view' && frame.settled) expect(frame.sub).toBe('s')
  expect(view.rows.size).toBe(20)
})

test('settled reaches each subscription on the table, and none on others; a socket without gets none', async () => {
  await using world = await createWorld({ tables: [features(), features({ name: 'notes', geometry: null })] })
  const client = await world.connect(alice)
  const one = await client.subscribe({ sub: 'one', bbox: ZURICH })
  const two = await client.subscribe({ sub: 'two', bbox: [0, 0, 1, 1] })
  const notes = await client.subscribe({ sub: 'notes', table: 'notes' })
  const { batch } = await client.write([{ op: 'insert', columns: { org_id: 'a', geom: point(8.5, 47.5) } }])
  await client.until(() => one.settled.has(batch) && two.settled.has(batch), 'both settled')
  expect(notes.settled.size).toBe(0)
  const bare = await world.connect(alice)
  await bare.write([{ op: 'insert', columns: { org_id: 'a', geom: point(8.5, 47.5) } }])
  await world.barrier(client, alice, { sub: 'one' })
  await bare.ping()
  expect(bare.frames.filter((frame) => frame.type === 'view')).toEqual([])
})

test('I7: an insert may leave the id to its default, and the outcome tells it', async () => {
  await using world = await createWorld()
  const { client } = await world.watch(alice)
  const { edits } = await client.write([{ op: 'insert', columns: { org_id: 'a', name: 'no id given' } }])
  const [row] = await world.admin`select id::text from features`
  expect(edits).toEqual([{ status: 'applied', id: row!.id }])
})

test('I7: what the policies refuse is forbidden, and nothing of it is written', async () => {
  await using world = await createWorld()
  const own = await world.put({ org: 'a' })
  const { client } = await world.watch(alice)
  const { edits } = await client.write([
    { op: 'insert', columns: { org_id: 'b', name: 'smuggled' } },
    { op: 'update', id: own, columns: { org_id: 'b' } },
    { op: 'update', id: own, columns: { org_id: null } },
    { op: 'insert', columns: { name: 'nobody’s' } },
  ])
  expect(codes(edits)).toEqual(['forbidden', 'forbidden', 'forbidden', 'forbidden'])
  expect(await world.admin`select org_id from features`).toMatchObject([{ org_id: 'a' }])
})

test('I8: a row that one cannot see is not found, exactly as one that does not exist', async () => {
  await using world = await createWorld()
  const foreign = await world.put({ org: 'b', name: 'secret' })
  const { client } = await world.watch(alice)
  const answers = await Promise.all(
    [foreign, crypto.randomUUID()].map(async (id) => {
      const { edits } = await client.write([
        { op: 'update', id, columns: { name: 'x' } },
        { op: 'update', id, columns: { org_id: 'a' } },
        { op: 'delete', id },
      ])
      return JSON.stringify(edits).replaceAll(id, 'ID')
    }),
  )
  expect(answers[0]).toBe(answers[1]!)
  expect(codes(JSON.parse(answers[0]!))).toEqual(['not_found', 'not_found', 'not_found'])
  expect(await world.admin`select name, org_id from features`).toMatchObject([
    { name: 'secret', org_id: 'b' },
  ])
})

test('I7: a key that is taken, a foreign key, a check, a NOT NULL: coded, and without other rows’ values', async () => {
  await using world = await createWorld({
    tables: [
      features({
        columns: `, code text unique, parent uuid references features, amount int check (amount < 10), must text not null default 'm'`,
      }),
    ],
  })
  const foreign = await world.put({ org: 'b' })
  await world.admin`update features set code = 'taken by a foreign row' where id = ${foreign}`
  const { client } = await world.watch(alice)
  const { edits } = await client.write([
    { op: 'insert', columns: { id: foreign, org_id: 'a' } },
    { op: 'insert', columns: { org_id: 'a', code: 'taken by a foreign row' } },
    { op: 'insert', columns: { org_id: 'a', parent: crypto.randomUUID() } },
    { op: 'insert', columns: { org_id: 'a', amount: 11 } },
    { op: 'insert', columns: { org_id: 'a', must: null } },
    { op: 'insert', columns: { org_id: 'a', nonsense: 1 } },
    { op: 'insert', columns: { org_id: 'a', amount: 'eleven' } },
    { op: 'insert', columns: { org_id: 'a', geom: { type: 'Point', coordinates: ['x'] } } },
    { op: 'insert', columns: { org_id: 'a', geom: 'POINT(1 2)' } },
    { op: 'update', id: crypto.randomUUID(), columns: {} },
    { op: 'insert', columns: { org_id: 'a', name: 'good' } },
  ])
  expect(codes(edits).slice(0, 9)).toEqual(['conflict', 'conflict', ...Array(7).fill('invalid')])
  expect(codes(edits).at(-1)).toBe('applied')
  const told = JSON.stringify(edits)
  expect(told).not.toContain('taken by a foreign row')
  expect(told).not.toContain(foreign)
})

test('I7: only the columns of an update are written; edits of two people to different columns both win', async () => {
  await using world = await createWorld({ tables: [features({ columns: ', note text' })] })
  const id = await world.put({ org: 'a', name: 'name', size: 1 })
  await world.admin`update features set note = 'note'`
  const [one, two] = [await world.watch(alice), await world.watch({ sub: 'carol', org_id: 'a' })]
  await Promise.all([
    one.client.write([{ op: 'update', id, columns: { name: 'by alice' } }]),
    two.client.write([{ op: 'update', id, columns: { size: 2 } }]),
  ])
  const expected = { id, org_id: 'a', name: 'by alice', size: 2, note: 'note', geom: point(8.5, 47.5) }
  for (const { client, view } of [one, two])
    await client.until(
      () => JSON.stringify(sorted(view.rows.get(id))) === JSON.stringify(sorted(expected)),
      'both edits',
    )
})

const sorted = (row: object | undefined) => Object.entries(row ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))

test('I9: one bad edit does not hold up the others, in its batch or behind it', async () => {
  await using world = await createWorld()
  const { client } = await world.watch(alice)
  const good = (name: string): Edit => ({ op: 'insert', columns: { org_id: 'a', name } })
  const bad: Edit = { op: 'insert', columns: { org_id: 'b', name: 'bad' } }
  const worse: Edit = { op: 'insert', columns: { org_id: 'a', size: 'not a number' } }
  const first = client.write([
    good('1'),
    bad,
    good('2'),
    worse,
    good('3'),
    { op: 'delete', id: crypto.randomUUID() },
  ])
  const second = client.write([bad])
  const third = client.write([good('4')])
  expect(codes((await first).edits)).toEqual([
    'applied',
    'forbidden',
    'applied',
    'invalid',
    'applied',
    'not_found',
  ])
  expect(codes((await second).edits)).toEqual(['forbidden'])
  expect(codes((await third).edits)).toEqual(['applied'])
  const names = await world.admin`select name from features order by name`
  expect(names.map((row) => row.name)).toEqual(['1', '2', '3', '4'])
})

test('edits of a batch are applied in order and see one another', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  const id = crypto.randomUUID()
  const { edits, batch } = await client.write([
    { op: 'insert', columns: { id, org_id: 'a', size: 1, geom: point(8.5, 47.5) } },
    { op: 'update', id, columns: { size: 2 } },
    { op: 'delete', id },
    { op: 'update', id, columns: { size: 3 } },
    { op: 'insert', columns: { id, org_id: 'a', size: 4, geom: point(8.5, 47.5) } },
  ])
  expect(codes(edits)).toEqual(['applied', 'applied', 'applied', 'not_found', 'applied'])
  await client.until(() => view.settled.has(batch), 'settled')
  expect(view.rows.get(id)?.size).toBe(4)
})

test('batches of one socket are applied in the order they were sent', async () => {
  await using world = await createWorld()
  const id = await world.put({ org: 'a', size: 0 })
  const { client, view } = await world.watch(alice)
  const sent = Array.from({ length: 25 }, (_, n) =>
    client.write([{ op: 'update', id, columns: { size: n + 1 } }]),
  )
  await Promise.all(sent)
  await client.until(() => view.rows.get(id)?.size === 25, 'the last one')
  expect(await world.admin`select size from features`).toMatchObject([{ size: 25 }])
})

describe('a batch sent again', () => {
  test('I7: is applied once, and answered as the first time', async () => {
    await using world = await createWorld()
    const { client, view } = await world.watch(alice)
    const edits: Edit[] = [
      { op: 'insert', columns: { org_id: 'a', name: 'once', geom: point(8.5, 47.5) } },
      { op: 'insert', columns: { org_id: 'b' } },
    ]
    const first = await client.write(edits)
    await client.until(() => view.settled.has(first.batch), 'settled')
    const other = await world.connect(alice)
    const otherView = await other.subscribe({ bbox: ZURICH })
    expect(await other.write(edits, { batch: first.batch })).toEqual(first)
    await other.until(() => otherView.settled.has(first.batch), 'settled on the new socket, too')
    expect(await world.admin`select 1 from features`).toHaveLength(1)
  })

  test('I7: is not applied again after what it did was undone', async () => {
    await using world = await createWorld()
    const client = await world.connect(alice)
    const edits: Edit[] = [{ op: 'insert', columns: { org_id: 'a' } }]
    const first = await client.write(edits)
    await world.admin`delete from features`
    expect(await client.write(edits, { batch: first.batch })).toEqual(first)
    expect(await world.admin`select 1 from features`).toHaveLength(0)
  })

  test('I7: at once, ten times over, is applied once', async () => {
    await using world = await createWorld()
    const sockets = await Promise.all(Array.from({ length: 10 }, () => world.connect(alice)))
    const batch = crypto.randomUUID()
    const edits: Edit[] = [{ op: 'insert', columns: { org_id: 'a' } }]
    const outcomes = await Promise.all(sockets.map((socket) => socket.write(edits, { batch })))
    for (const outcome of outcomes) expect(outcome).toEqual(outcomes[0]!)
    expect(outcomes[0]!.edits[0]?.status).toBe('applied')
    expect(await world.admin`select 1 from features`).toHaveLength(1)
  })

  test('I7: by another user is another batch: it learns nothing of the first', async () => {
    await using world = await createWorld()
    const [a, b] = [await world.connect(alice), await world.connect(bob)]
    const batch = crypto.randomUUID()
    const first = await a.write([{ op: 'insert', columns: { org_id: 'a' } }], { batch })
    const second = await b.write([{ op: 'insert', columns: { org_id: 'b' } }], { batch })
    expect(codes(second.edits)).toEqual(['applied'])
    expect(second.edits).not.toEqual(first.edits)
    const rows = await world.admin`select org_id from features order by 1`
    expect(rows.map((row) => row.org_id)).toEqual(['a', 'b'])
  })

  test('I7: sent without waiting, then the socket dies: applied at most once, and the outcome can be asked for', async () => {
    await using world = await createWorld()
    for (let round = 0; round < 10; round++) {
      const batch = crypto.randomUUID()
      const edits: Edit[] = [{ op: 'insert', columns: { org_id: 'a', size: round } }]
      const dying = await world.connect(alice)
      dying.send({ type: 'write', batch, edits })
      if (round % 2) await dying.ping()
      dying.kill()
      const again = await world.connect(alice)
      expect(codes((await again.write(edits, { batch })).edits)).toEqual(['applied'])
    }
    const rows = await world.admin`select size from features order by size`
    expect(rows.map((row) => row.size)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  })
})

test('a batch as large as allowed is applied; a larger one is refused and costs nothing', async () => {
  await using world = await createWorld()
  const client = await world.connect(alice)
  const edits = Array.from(
    { length: EDITS_PER_BATCH_MAX },
    (_, size): Edit => ({ op: 'insert', columns: { org_id: 'a', size } }),
  )
  expect(new Set(codes((await client.write(edits)).edits))).toEqual(new Set(['applied']))
  client.send({ type: 'write', batch: crypto.randomUUID(), edits: [...edits, edits[0]!] })
  const answered = await Promise.race([
    client.untilClosed().then(({ code }) => code),
    client
      .until(() => client.frames.filter((frame) => frame.type === 'outcome').length === 2, 'an answer')
      .catch(() => 4400),
  ])
  if (typeof answered === 'number') expect([4400, 4413]).toContain(answered)
  expect(await world.admin`select count(*)::int as n from features`).toMatchObject([
    { n: EDITS_PER_BATCH_MAX },
  ])
})

test('rate_limit counts edits per minute and address: the rest is rate_limited, others go on reading', async () => {
  await using world = await createWorld({ config: { rateLimit: 5 } })
  const { client } = await world.watch(alice)
  const insert: Edit = { op: 'insert', columns: { org_id: 'a' } }
  const outcomes = []
  for (let n = 0; n < 8; n++) outcomes.push(...codes((await client.write([insert])).edits))
  expect(outcomes.filter((code) => code === 'applied')).toHaveLength(5)
  expect(outcomes.filter((code) => code === 'rate_limited')).toHaveLength(3)
  await world.barrier(client, alice)
})

test('I7: a batch that was applied is answered with its outcome even where new ones are rate_limited', async () => {
  await using world = await createWorld({ config: { rateLimit: 1 } })
  const { client } = await world.watch(alice)
  const batch = crypto.randomUUID()
  const edits: Edit[] = [{ op: 'insert', columns: { org_id: 'a' } }]
  const first = await client.write(edits, { batch })
  expect(codes(first.edits)).toEqual(['applied'])
  expect(codes((await client.write(edits)).edits)).toEqual(['rate_limited'])
  expect((await client.write(edits, { batch })).edits).toEqual(first.edits)
})

test('I2: what a writer gets back is only what its claims can see', async () => {
  // Writing is allowed anywhere, reading only at home.
  await using world = await createWorld({
    tables: [
      features({
        policies: `alter table features enable row level security; alter table features force row level security;
          create policy reading on features for select using (org_id = current_setting('datum.org_id', true));
          create policy writing on features for insert with check (true);
          create policy changing on features for update using (true) with check (true)`,
      }),
    ],
  })
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  const id = crypto.randomUUID()
  const { edits, batch } = await client.write([
    { op: 'insert', columns: { id, org_id: 'b', geom: point(8.5, 47.5) } },
  ])
  expect(['applied', 'forbidden']).toContain(codes(edits)[0]!)
  if (edits[0]?.status === 'applied') await client.until(() => view.settled.has(batch), 'settled')
  await world.barrier(client, alice)
  expect(view.rows.has(id)).toBe(false)
})

test('I12: the application’s own triggers and defaults see the claims', async () => {
  await using world = await createWorld({
    tables: [features({ columns: `, author text default current_setting('datum.sub', true)` })],
  })
  const { client, view } = await world.watch(alice)
  const id = crypto.randomUUID()
  await client.write([{ op: 'insert', columns: { id, org_id: 'a', geom: point(8.5, 47.5) } }])
  await client.until(() => view.rows.get(id)?.author === 'alice', 'the author is alice')
})

test('a trigger of the application that changes or swallows a write', async () => {
  await using world = await createWorld({
    before: `create or replace function shout() returns trigger language plpgsql as
      $$ begin if new.name = 'swallow' then return null; end if;
         if new.name = 'raise' then raise exception 'a secret message'; end if;
         new.name := upper(new.name); return new; end $$`,
    tables: [
      {
        ...features(),
        sql: `${features().sql}; create trigger shout before insert or update on features for each row execute function shout()`,
      },
    ],
  })
  const { client, view } = await world.watch(alice)
  const id = crypto.randomUUID()
  const { edits } = await client.write([
    { op: 'insert', columns: { id, org_id: 'a', name: 'quiet', geom: point(8.5, 47.5) } },
    { op: 'insert', columns: { org_id: 'a', name: 'swallow' } },
    { op: 'insert', columns: { org_id: 'a', name: 'raise' } },
  ])
  expect(edits[0]?.status).toBe('applied')
  expect(edits[1]?.status).toBe('rejected')
  expect(edits[2]?.status).toBe('rejected')
  expect(JSON.stringify(edits)).not.toContain('a secret message')
  await client.until(() => view.rows.get(id)?.name === 'QUIET', 'the trigger had its say')
})

test('a write to columns that the role may not write is forbidden', async () => {
  await using world = await createWorld({
    tables: [
      {
        ...features(),
        policies: `${features().policies}; revoke update, delete on features from datum_app; grant update (name) on features to datum_app`,
      },
    ],
  })
  const id = await world.put({ org: 'a' })
  const { client } = await world.watch(alice)
  const { edits } = await client.write([
    { op: 'update', id, columns: { size: 1 } },
    { op: 'delete', id },
    { op: 'update', id, columns: { name: 'allowed' } },
  ])
  expect(codes(edits)).toEqual(['forbidden', 'forbidden', 'applied'])
})
