/** Rows much larger than the average so far. Invariants 9 and 10. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { readForClasses } from '../../src/db/as-principal.ts'
import { readTable } from '../../src/db/catalog.ts'
import { ROW_BYTES_MAX } from '../../src/wire/limits.ts'
import type { Edit, Json } from '../../src/wire/messages.ts'
import { createWorld, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)
const alice = { sub: 'alice', org_id: 'a' }

test('I10: a shared read brings so many characters at most, and the ids of what it left out', async () => {
  await using world = await createWorld({ tables: [features({ columns: ', body text' })] })
  const ids = await Promise.all(Array.from({ length: 6 }, () => world.put({ org: 'a' })))
  await world.admin`update features set body = repeat('x', 1000000)`
  const { sql } = world.openDatabase()
  const table = await readTable(sql, world.config.tables[0]!)
  const classes = [{ settings: { 'datum.org_id': 'a' }, ids }]
  const limits = { timeoutMs: null, lengthMax: 2_500_000 }
  expect(table.readFunction).not.toBeNull()
  // With the function that `setup` made, and as for a table that was altered since.
  for (const readFunction of [table.readFunction, null]) {
    const { results } = await readForClasses(sql, { ...table, readFunction }, classes, limits)
    const [result] = results
    if (result === undefined || 'error' in result) throw new Error('no rows')
    expect(result.rows).toHaveLength(2)
    expect(new Set([...result.rows.map(({ id }) => id), ...result.unread])).toEqual(new Set(ids))
  }
})

test('I4: rows that one read has no room for arrive all the same, initially and when they change', async () => {
  await using world = await createWorld({ tables: [features({ columns: ', body text' })] })
  await world.admin`
    insert into features (org_id, body, geom)
    select 'a', repeat('x', 1000000), st_setsrid(st_makepoint(8.5, 47.5), 4326) from generate_series(1, 12)`
  const { client, view } = await world.watch(alice)
  expect(view.rows.size).toBe(12)
  await world.admin`update features set size = 5`
  await client.until(() => [...view.rows.values()].every(({ size }) => size === 5), 'every change')
})

test('I9: a client cannot make a row that ends the views of everybody else in its organisation', async () => {
  await using world = await createWorld({ tables: [features({ columns: ', a text, b text, c text' })] })
  const id = await world.put({ org: 'a' })
  const bob = await world.watch({ sub: 'bob', org_id: 'a' })
  const mallory = await world.connect({ sub: 'mallory', org_id: 'a' })
  const text = 'x'.repeat(3_500_000)
  for (const column of ['a', 'b', 'c'])
    await mallory.write([{ op: 'update', id, columns: { [column]: text } }])
  await world.admin`insert into features (org_id, name, geom) values ('a', 'last', st_setsrid(st_makepoint(8.5, 47.5), 4326))`
  await bob.client.until(
    () => bob.view.ended !== null || [...bob.view.rows.values()].some(({ name }) => name === 'last'),
    'last',
  )
  expect(bob.view.ended).toBeNull()
})

/**
 * Fewer characters than a row may have bytes. Of three bytes each in UTF-8 they are more than it may have, and more than
 * may be queued for a socket, which would be closed for it.
 */
const CHARACTERS = 7_000_000
const inZurich = 'st_setsrid(st_makepoint(8.5, 47.5), 4326)'

test('I8: a row is measured in bytes: too many, in few characters, end the view that it comes into, and a view that begins with it', async () => {
  await using world = await createWorld({ tables: [features({ columns: ', body text' })] })
  const { client, view } = await world.watch(alice)
  await world.admin.unsafe(
    `insert into features (org_id, body, geom) select 'a', repeat('漢', ${CHARACTERS}), ${inZurich}`,
  )
  await client.until(() => view.rows.size === 1 || view.ended !== null, 'the row or an end')
  expect(view.ended?.code).toBe('row_too_large')
  const again = await client.subscribe({ bbox: ZURICH })
  await client.until(() => again.rows.size === 1 || again.ended !== null, 'the row or an end, again')
  expect(again.ended?.code).toBe('row_too_large')
  await client.ping()
})

test('I8: as many characters of one byte each are a row like any other', async () => {
  await using world = await createWorld({ tables: [features({ columns: ', body text' })] })
  const { client, view } = await world.watch(alice)
  await world.admin.unsafe(
    `insert into features (org_id, body, geom) select 'a', repeat('x', ${CHARACTERS}), ${inZurich}`,
  )
  await client.until(() => view.rows.size === 1 || view.ended !== null, 'the row or an end')
  expect(view.ended).toBeNull()
})

test('I9: an edit that makes a row too large in bytes is refused, whatever its characters', async () => {
  await using world = await createWorld({ tables: [features({ columns: ', a text, b text, c text' })] })
  const id = await world.put({ org: 'a' })
  const client = await world.connect(alice)
  const text = '漢'.repeat(1_000_000)
  const outcomes: unknown[] = []
  for (const column of ['a', 'b', 'c']) {
    const { edits } = await client.write([{ op: 'update', id, columns: { [column]: text } }])
    outcomes.push(edits[0])
  }
  expect(outcomes).toMatchObject([
    { status: 'applied' },
    { status: 'applied' },
    { status: 'rejected', code: 'too_large' },
  ])
})

test('I9: small edits do not make a row too large either: a little more of a large one, and numbers that are longer written out', async () => {
  const columns = ', a text, b text, c text, d text, n numeric[]'
  await using world = await createWorld({ tables: [features({ columns })] })
  const id = await world.put({ org: 'a' })
  const bob = await world.watch({ sub: 'bob', org_id: 'a' })
  const mallory = await world.connect({ sub: 'mallory', org_id: 'a' })
  const codes: string[] = []
  const edit = async (edits: Edit[]) => {
    const outcome = await mallory.write(edits)
    for (const one of outcome.edits) codes.push(one.status === 'applied' ? one.status : one.code)
  }
  const update = (more: Record<string, Json>): Edit => ({ op: 'update', id, columns: more })
  const large = 'x'.repeat((ROW_BYTES_MAX - 10_000) / 3)
  for (const column of ['a', 'b', 'c']) await edit([update({ [column]: large })])
  await edit([update({ d: 'x'.repeat(20_000) })])
  await edit([update({ a: null, b: null, c: null })])
  // A hundred times 131,072 digits.
  const numbers = new Array<string>(100).fill('1e131071')
  await edit([update({ n: numbers })])
  const written = ['1e131071', '-1e131071', '1.e131071', '-1.5E+131071']
  for (const number of written) {
    const n = new Array<string>(100).fill(number)
    await edit([{ op: 'insert', columns: { id: crypto.randomUUID(), org_id: 'a', n } }])
  }
  await edit([{ op: 'insert', columns: { org_id: 'a', n: numbers } }])
  expect(codes).toEqual([
    ...['applied', 'applied', 'applied', 'too_large', 'applied'],
    ...['too_large', ...written.map(() => 'too_large'), 'too_large'],
  ])
  await edit([update({ name: 'last' })])
  await bob.client.until(
    () => bob.view.ended !== null || [...bob.view.rows.values()].some(({ name }) => name === 'last'),
    'last',
  )
  expect(bob.view.ended).toBeNull()
})

test('I10: a large row that many classes see is not brought once for each of them in one answer', async () => {
  await using world = await createWorld({
    tables: [
      features({
        columns: ', body text',
        policies: `alter table features enable row level security;
          create policy p on features using (org_id = 'a' and datum.claim('sub') <> '')`,
      }),
    ],
  })
  const large = await world.put({ org: 'a' })
  const small = await world.put({ org: 'a' })
  const users = await Promise.all(Array.from({ length: 5 }, (_, n) => world.watch({ sub: `user ${n}` })))
  await world.admin`update features set body = repeat('x', 3000000) where id = ${large}`
  await world.admin`update features set size = 6`
  for (const { client, view } of users)
    await client.until(() => [large, small].every((id) => view.rows.get(id)?.size === 6), 'both rows')

  const { sql } = world.openDatabase()
  const table = await readTable(sql, world.config.tables[0]!)
  const classes = users.map((_, n) => ({ settings: { 'datum.sub': `user ${n}` }, ids: [large] }))
  for (const readFunction of [table.readFunction, null])
    for (const ids of [[large], [large, small]]) {
      const asked = classes.map(({ settings }) => ({ settings, ids }))
      const limits = { timeoutMs: null, lengthMax: 100_000 }
      const { results } = await readForClasses(sql, { ...table, readFunction }, asked, limits)
      for (const result of results) {
        if ('error' in result) throw new Error(result.error)
        expect(result.unread).toContain(large)
      }
      const alone = await readForClasses(sql, { ...table, readFunction }, asked.slice(0, 1), limits)
      expect(alone.results[0]).toMatchObject({ rows: [{}] })
    }
})
