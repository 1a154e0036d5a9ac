/** Values of every common type arrive without loss, and go back unchanged. */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import type { Json } from '../../src/wire/messages.ts'
import { createWorld, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

/** A column type, an SQL literal of it, what must be on the wire, and whether the wire's value can be written back. */
interface Case {
  readonly type: string
  readonly sql: string
  readonly wire: Json
}

const BEFORE = `
  do $$ begin create type mood as enum ('happy', 'so "so"', 'traurig'); exception when duplicate_object then null; end $$;
  do $$ begin create domain positive as numeric(20, 3) check (value > 0); exception when duplicate_object then null; end $$;
  do $$ begin create domain short_text as varchar(10); exception when duplicate_object then null; end $$;
  do $$ begin create domain big as bigint; exception when duplicate_object then null; end $$;
  do $$ begin create type pair as (x integer, y text); exception when duplicate_object then null; end $$`

const CASES: readonly Case[] = [
  { type: 'smallint', sql: '-32768', wire: -32768 },
  { type: 'integer', sql: '2147483647', wire: 2147483647 },
  { type: 'bigint', sql: '9007199254740993', wire: '9007199254740993' },
  { type: 'bigint', sql: '-9223372036854775808', wire: '-9223372036854775808' },
  {
    type: 'numeric',
    sql: '12345678901234567890.12345678901234567890',
    wire: '12345678901234567890.12345678901234567890',
  },
  { type: 'numeric', sql: "'NaN'", wire: 'NaN' },
  { type: 'numeric(10,2)', sql: '1.50', wire: '1.50' },
  { type: 'money', sql: "'1234.56'", wire: '$1,234.56' },
  { type: 'real', sql: '0.1', wire: 0.1 },
  { type: 'double precision', sql: '0.1', wire: 0.1 },
  { type: 'double precision', sql: '1.7976931348623157e308', wire: 1.7976931348623157e308 },
  { type: 'double precision', sql: "'NaN'", wire: 'NaN' },
  { type: 'double precision', sql: "'-Infinity'", wire: '-Infinity' },
  { type: 'boolean', sql: 'true', wire: true },
  { type: 'boolean', sql: 'false', wire: false },
  {
    type: 'text',
    sql: `E'it''s "quoted" \\\\ back\\nnew line\\ttab \\u00fc \\U0001F5FA \\u0001'`,
    wire: 'it\'s "quoted" \\ back\nnew line\ttab ü 🗺 \u0001',
  },
  { type: 'text', sql: "''", wire: '' },
  { type: 'text', sql: "'null'", wire: 'null' },
  { type: 'varchar(20)', sql: "'varying '", wire: 'varying ' },
  { type: 'char(5)', sql: "'ab'", wire: 'ab   ' },
  { type: '"char"', sql: "'x'", wire: 'x' },
  { type: 'name', sql: "'a_name'", wire: 'a_name' },
  {
    type: 'uuid',
    sql: "'7B0E9D3C-51F1-4D2B-9A63-0E0A4B6F2C11'",
    wire: '7b0e9d3c-51f1-4d2b-9a63-0e0a4b6f2c11',
  },
  { type: 'json', sql: `'{"b": 1, "a": [null, 1.50, "x"]}'`, wire: { b: 1, a: [null, 1.5, 'x'] } },
  { type: 'jsonb', sql: `'{"b": {"c": []}, "a": "\\u00fc"}'`, wire: { b: { c: [] }, a: 'ü' } },
  { type: 'jsonb', sql: `'"just text"'`, wire: 'just text' },
  { type: 'jsonb', sql: `'[1, 2]'`, wire: [1, 2] },
  {
    type: 'timestamptz',
    sql: "'2024-02-29T12:34:56.123456+05:30'",
    wire: '2024-02-29T07:04:56.123456+00:00',
  },
  { type: 'timestamptz', sql: "'infinity'", wire: 'infinity' },
  { type: 'timestamp', sql: "'2024-02-29T12:34:56.5'", wire: '2024-02-29T12:34:56.5' },
  { type: 'date', sql: "'2024-02-29'", wire: '2024-02-29' },
  { type: 'time', sql: "'23:59:59.999'", wire: '23:59:59.999' },
  { type: 'timetz', sql: "'23:59:59+02'", wire: '23:59:59+02' },
  { type: 'interval', sql: "'1 year 2 months 3 days 04:05:06'", wire: '1 year 2 mons 3 days 04:05:06' },
  { type: 'bytea', sql: "'\\xdeadbeef00'", wire: '\\xdeadbeef00' },
  { type: 'bytea', sql: "''", wire: '\\x' },
  { type: 'integer[]', sql: "'{1,NULL,3}'", wire: [1, null, 3] },
  { type: 'integer[]', sql: "'{}'", wire: [] },
  {
    type: 'integer[][]',
    sql: "'{{1,2},{3,4}}'",
    wire: [
      [1, 2],
      [3, 4],
    ],
  },
  { type: 'bigint[]', sql: "'{9007199254740993,NULL}'", wire: ['9007199254740993', null] },
  { type: 'numeric[]', sql: "'{1.50,12345678901234567890.1}'", wire: ['1.50', '12345678901234567890.1'] },
  { type: 'text[]', sql: `'{"a \\"b\\"","c,d",NULL,"null",""}'`, wire: ['a "b"', 'c,d', null, 'null', ''] },
  { type: 'boolean[]', sql: "'{t,f}'", wire: [true, false] },
  {
    type: 'uuid[]',
    sql: "'{7b0e9d3c-51f1-4d2b-9a63-0e0a4b6f2c11}'",
    wire: ['7b0e9d3c-51f1-4d2b-9a63-0e0a4b6f2c11'],
  },
  { type: 'jsonb[]', sql: `array['{"a": 1}'::jsonb, 'null'::jsonb]`, wire: [{ a: 1 }, null] },
  { type: 'timestamptz[]', sql: `'{"2024-02-29T00:00:00Z"}'`, wire: ['2024-02-29T00:00:00+00:00'] },
  { type: 'double precision[]', sql: "'{0.1,NaN}'", wire: [0.1, 'NaN'] },
  { type: 'mood', sql: `'so "so"'`, wire: 'so "so"' },
  { type: 'mood[]', sql: `'{happy,"so \\"so\\""}'`, wire: ['happy', 'so "so"'] },
  { type: 'int4range', sql: "'[1,5)'", wire: '[1,5)' },
  { type: 'tstzrange', sql: "'[2024-01-01T00:00:00Z,)'", wire: '["2024-01-01 00:00:00+00",)' },
  { type: 'int4multirange', sql: "'{[1,2),[5,6)}'", wire: '{[1,2),[5,6)}' },
  { type: 'inet', sql: "'10.0.0.1/24'", wire: '10.0.0.1/24' },
  { type: 'cidr', sql: "'10.0.0.0/24'", wire: '10.0.0.0/24' },
  { type: 'macaddr', sql: "'08:00:2b:01:02:03'", wire: '08:00:2b:01:02:03' },
  { type: 'bit(3)', sql: "B'101'", wire: '101' },
  { type: 'tsvector', sql: "'fat cat'", wire: "'cat' 'fat'" },
  { type: 'xml', sql: `'<a b="c">d</a>'`, wire: '<a b="c">d</a>' },
  { type: 'point', sql: "'(1,2)'", wire: '(1,2)' },
  { type: 'positive', sql: '1.5', wire: '1.500' },
  { type: 'short_text', sql: "'short'", wire: 'short' },
  { type: 'big', sql: '9007199254740993', wire: '9007199254740993' },
  { type: 'big[]', sql: "'{9007199254740993}'", wire: ['9007199254740993'] },
  { type: 'pair', sql: `row(1, 'it''s "x"')`, wire: '(1,"it\'s ""x""")' },
]

const columns = CASES.map(({ type }, n) => `, c${n} ${type}`).join('')

describe('columns', () => {
  test('I4: initial rows and changes have every value exactly', async () => {
    await using world = await createWorld({ before: BEFORE, tables: [features({ columns })] })
    const insert = () =>
      world.admin.unsafe(`
      insert into features (org_id, geom, ${CASES.map((_, n) => `c${n}`)})
      values ('a', st_setsrid(st_makepoint(8.5, 47.5), 4326), ${CASES.map(({ sql }) => sql)}) returning id`)
    const [early] = await insert()
    const { client, view } = await world.watch(alice)
    const [late] = await insert()
    await client.until(() => view.rows.has(late!.id), 'the live one')
    for (const id of [early!.id, late!.id])
      for (const [n, { type, wire }] of CASES.entries())
        expect({ type, value: view.rows.get(id)?.[`c${n}`] as unknown }).toEqual({ type, value: wire })
  })

  test('NULL is null in every type', async () => {
    await using world = await createWorld({ before: BEFORE, tables: [features({ columns })] })
    const id = await world.put({ org: 'a' })
    const { view } = await world.watch(alice)
    for (const n of CASES.keys()) expect(view.rows.get(id)?.[`c${n}`]).toBeNull()
  })

  test('what the wire shows can be written back, as insert and as update', async () => {
    await using world = await createWorld({ before: BEFORE, tables: [features({ columns })] })
    const { client, view } = await world.watch(alice)
    const all = Object.fromEntries(CASES.map(({ wire }, n) => [`c${n}`, wire]))
    const inserted = crypto.randomUUID()
    const updated = await world.put({ org: 'a' })
    const geom = { type: 'Point', coordinates: [8.5, 47.5] }
    const outcome = await client.write([
      { op: 'insert', columns: { id: inserted, org_id: 'a', geom, ...all } },
      { op: 'update', id: updated, columns: all },
    ])
    expect(outcome.edits).toEqual([
      { status: 'applied', id: inserted },
      { status: 'applied', id: updated },
    ])
    await client.until(
      () => view.rows.get(inserted)?.c0 != null && view.rows.get(updated)?.c0 != null,
      'both are there',
    )
    for (const id of [inserted, updated])
      for (const [n, { type, wire }] of CASES.entries())
        expect({ type, value: view.rows.get(id)?.[`c${n}`] as unknown }).toEqual({ type, value: wire })
  })

  test('each type can be written alone; what does not fit is invalid and costs nothing else', async () => {
    await using world = await createWorld({ before: BEFORE, tables: [features({ columns })] })
    const id = await world.put({ org: 'a', name: 'kept' })
    const { client } = await world.watch(alice)
    const misfits: [type: string, value: Json][] = [
      ['smallint', 'x'],
      ['integer', 1e10],
      ['bigint', 'nine'],
      ['boolean', 'maybe'],
      ['uuid', 'no uuid'],
      ['timestamptz', 'no time'],
      ['integer[]', { a: 1 }],
      ['mood', 'angry'],
      ['positive', -1],
      ['short_text', 'x'.repeat(11)],
    ]
    const outcome = await client.write(
      misfits.map(([type, value]) => {
        const column = `c${CASES.findIndex((each) => each.type === type)}`
        return { op: 'update', id, columns: { [column]: value, name: 'lost' } }
      }),
    )
    expect(
      outcome.edits.map((edit) => (edit.status === 'rejected' ? edit.code : `applied ${edit.id}`)),
    ).toEqual(misfits.map(() => 'invalid'))
    expect(await world.admin`select name from features`).toMatchObject([{ name: 'kept' }])
  })

  test('NULL and JSON null are told apart as far as the wire can', async () => {
    await using world = await createWorld({ tables: [features({ columns: ', doc jsonb, note text' })] })
    const id = await world.put({ org: 'a' })
    const { client } = await world.watch(alice)
    await client.write([{ op: 'update', id, columns: { doc: { a: null }, note: 'null' } }])
    expect(await world.admin`select doc->'a' as a, note from features`).toMatchObject([{ note: 'null' }])
    await client.write([{ op: 'update', id, columns: { doc: null, note: null } }])
    expect(await world.admin`select doc is null as a, note is null as b from features`).toMatchObject([
      { a: true, b: true },
    ])
  })

  test('generated and identity columns are shown and cannot be written', async () => {
    await using world = await createWorld({
      tables: [
        features({
          columns:
            ', doubled integer generated always as (size * 2) stored, serial_no integer generated always as identity',
        }),
      ],
    })
    const id = await world.put({ org: 'a', size: 21 })
    const { client, view } = await world.watch(alice)
    expect(view.rows.get(id)?.doubled).toBe(42)
    const outcome = await client.write([
      { op: 'update', id, columns: { doubled: 1 } },
      { op: 'update', id, columns: { serial_no: 9 } },
      { op: 'update', id, columns: { size: 4 } },
    ])
    expect(outcome.edits.map((edit) => edit.status)).toEqual(['rejected', 'rejected', 'applied'])
    await client.until(() => view.rows.get(id)?.doubled === 8, 'computed anew')
  })
})

test('I11: a row of more than 8,000 bytes can be written by the application and arrives', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  const id = await world.put({ org: 'a', name: 'small' })
  const long = `${'ü"\\'.repeat(20_000)}end`
  await world.admin`update features set name = ${long} where id = ${id}`
  await client.until(() => view.rows.get(id)?.name === long, 'the long text is there')
  await world.admin`
    update features set geom = (select st_makeline(st_setsrid(st_makepoint(8 + n / 10000.0, 47.5), 4326)) from generate_series(1, 9000) n)`
  await client.until(
    () => (view.rows.get(id)?.geom as { type?: string })?.type === 'LineString',
    'the long line is there',
  )
})

test('I8: a row that is larger than a row may be ends the subscription that would show it, and no other', async () => {
  await using world = await createWorld()
  const onlooker = await world.watch({ sub: 'bob', org_id: 'b' })
  const { client, view } = await world.watch(alice)
  await world.admin`
    insert into features (org_id, name, geom) values ('a', repeat('x', 17 * 1024 * 1024), st_setsrid(st_makepoint(8.5, 47.5), 4326))`
  await client.until(() => view.ended !== null, 'it ended')
  expect(view.ended?.code).toBe('row_too_large')
  await world.barrier(onlooker.client, { org_id: 'b' })
  await client.ping()
})

test('columns that the role may not read are neither shown nor read', async () => {
  await using world = await createWorld({
    tables: [
      {
        ...features({ columns: ', secret text' }),
        policies: `alter table features enable row level security; create policy p on features using (true);
          revoke select on features from datum_app; grant select (id, org_id, name, size, geom) on features to datum_app`,
      },
    ],
  })
  await world.admin`insert into features (org_id, secret, geom) values ('a', 'hidden', st_setsrid(st_makepoint(8.5, 47.5), 4326))`
  const client = await world.connect(alice)
  const view = await client.subscribe({ bbox: ZURICH })
  expect(JSON.stringify(client.frames)).not.toContain('hidden')
  expect(view.ended === null ? [...view.rows.values()].every((row) => !('secret' in row)) : true).toBe(true)
})

test('a column added, dropped or retyped while a subscription is open ends it with schema_changed or goes on rightly', async () => {
  await using world = await createWorld({ tables: [features({ columns: ', old text' })] })
  const id = await world.put({ org: 'a' })
  const { client, view } = await world.watch(alice)
  let current = view
  const settle = async (what: string, holds: () => boolean) => {
    await world.admin`update features set size = coalesce(size, 0) + 1`
    await client.until(() => current.ended !== null || holds(), what)
    if (!current.ended) return
    expect(current.ended.code).toBe('schema_changed')
    current = await client.subscribe({ bbox: ZURICH })
    expect(holds()).toBe(true)
  }
  await world.admin`alter table features add column fresh text default 'fresh'`
  await settle('the new column is there', () => current.rows.get(id)?.fresh === 'fresh')
  await world.admin`alter table features drop column old`
  await settle('the old column is gone', () => current.rows.has(id) && !('old' in current.rows.get(id)!))
  await world.admin`alter table features alter column size type bigint`
  await settle('the size is a text', () => typeof current.rows.get(id)?.size === 'string')
  expect((await client.write([{ op: 'update', id, columns: { fresh: 'written' } }])).edits[0]?.status).toBe(
    'applied',
  )
})
