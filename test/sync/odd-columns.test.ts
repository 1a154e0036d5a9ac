/** Column types that nobody expected, and rows whose values cannot be shown: their own subscriber's matter. Invariants 8 and 9. */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

/** For what the embedded Postgres lacks: extensions, memory. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const bob = { sub: 'bob', org_id: 'b' }
const IN_ZURICH = `st_setsrid(st_makepoint(8.5, 47.5), 4326)`

onServer(
  'I4: types of extensions and of the application arrive, most as the text that Postgres writes',
  async () => {
    const cases: [type: string, sql: string, wire: unknown][] = [
      ['hstore', `'a=>1, "b c"=>NULL'`, '"a"=>"1", "b c"=>NULL'],
      ['ltree', `'top.science'`, 'top.science'],
      ['citext', `'MiXed'`, 'MiXed'],
      ['cube', `'(1,2),(3,4)'`, '(1, 2),(3, 4)'],
      ['pair[]', `array[row(1, 'x'), row(2, 'it''s "y"')]::pair[]`, ['(1,x)', '(2,"it\'s ""y""")']],
      ['nested', `row(row(1, 'x'), '{1,2}')`, '("(1,x)","{1,2}")'],
      ['pair_domain', `row(1, 'x')`, '(1,x)'],
      ['domain_array', `'{1,2}'`, [1, 2]],
      ['span', `'[1.5,2.5)'`, '[1.5,2.5)'],
      ['span[]', `array['[1.5,2.5)'::span]`, ['[1.5,2.5)']],
      ['bit varying', `B'10101'`, '10101'],
      ['tsquery', `'fat & cat'`, "'fat' & 'cat'"],
      ['jsonpath', `'$.a[*]'`, '$."a"[*]'],
      ['pg_lsn', `'16/B374D848'`, '16/B374D848'],
      ['regclass', `'features'`, 'features'],
      ['int4range[]', `array['[1,5)'::int4range]`, ['[1,5)']],
      ['box2d', `'BOX(1 2,3 4)'`, 'BOX(1 2,3 4)'],
      ['int2vector', `'1 2'`, '1 2'],
      ['geometry(Point, 4326)[]', `array[${IN_ZURICH}]`, null],
    ]
    await using world = await createWorld({
      before: `create extension hstore; create extension ltree; create extension citext; create extension cube;
      create type pair as (x integer, y text); create type nested as (p pair, list integer[]);
      create domain pair_domain as pair; create domain domain_array as integer[];
      create type span as range (subtype = float8)`,
      tables: [features({ columns: cases.map(([type], n) => `, c${n} ${type}`).join('') })],
    })
    const insert = `insert into features (org_id, geom, ${cases.map((_, n) => `c${n}`)})
    values ('a', ${IN_ZURICH}, ${cases.map(([, sql]) => sql)}) returning id`
    const [early] = await world.admin.unsafe(insert)
    const { client, view } = await world.watch(alice)
    const [late] = await world.admin.unsafe(insert)
    await client.until(() => view.rows.has(late!.id) || view.ended !== null, 'the live one')
    expect(view.ended).toBeNull()
    for (const id of [early!.id, late!.id])
      for (const [n, [type, , wire]] of cases.entries()) {
        const value = view.rows.get(id)?.[`c${n}`]
        if (wire === null) expect(JSON.stringify(value)).toBeString()
        else expect({ type, value: value as unknown }).toEqual({ type, value: wire })
      }
  },
)

describe('a value that cannot be made into text', () => {
  const before = `do $$ begin create type mine as (v text); exception when duplicate_object then null; end $$;
    create or replace function mine_text(m mine) returns text language plpgsql as
      $$ begin if (m).v = 'bad' then raise exception 'cannot'; end if; return (m).v; end $$;
    do $$ begin create cast (mine as text) with function mine_text(mine); exception when duplicate_object then null; end $$`

  test('I8: ends the subscription that would show it with a code, live and at the start, and no other', async () => {
    await using world = await createWorld({ before, tables: [features({ columns: ', odd mine' })] })
    const onlooker = await world.watch(bob)
    const { client, view } = await world.watch(alice)
    await world.admin.unsafe(
      `insert into features (org_id, geom, odd) values ('a', ${IN_ZURICH}, row('good'))`,
    )
    await client.until(() => view.rows.size === 1, 'a good one is shown')
    await world.admin.unsafe(
      `insert into features (org_id, geom, odd) values ('a', ${IN_ZURICH}, row('bad'))`,
    )
    await client.until(() => view.ended !== null, 'it ended')
    expect(view.ended?.code).toBe('policy_error')
    const again = await client.subscribe({ sub: 'again', bbox: [8, 47, 9, 48] })
    expect(again.ended?.code).toBe('policy_error')
    await client.ping()
    await world.barrier(onlooker.client, bob)
    expect(onlooker.view.ended).toBeNull()
  })
})

describe('policies that call themselves', () => {
  const recursive = (body: string) => `
    alter table features enable row level security; alter table features force row level security;
    create table switch (is_on boolean); grant select on switch to public;
    create function deeper(org text) returns boolean language plpgsql stable as $$
      begin if org = 'a' and exists (select from switch) then ${body} end if; return true; end $$;
    create policy p on features using (org_id = current_setting('datum.org_id', true) and deeper(org_id))`

  for (const [what, body] of [
    ['for ever (54001)', `return deeper(org);`],
    ['by reading the table again (42P17, 54001)', `return exists (select from features);`],
  ] as const)
    onServer(`I8: ${what} end the subscriptions of their tenant, and no other`, async () => {
      await using world = await createWorld({ tables: [features({ policies: recursive(body) })] })
      const onlooker = await world.watch(bob)
      const { client, view } = await world.watch(alice)
      await world.admin`insert into switch values (true)`
      await world.put({ org: 'a' })
      await client.until(() => view.ended !== null, 'it ended')
      expect(view.ended?.code).toBe('policy_error')
      expect((await client.subscribe({ sub: 'again', bbox: [8, 47, 9, 48] })).ended?.code).toBe(
        'policy_error',
      )
      await world.barrier(onlooker.client, bob)
      expect(onlooker.view.ended).toBeNull()
    })
})

onServer(
  'I9: a policy made recursive while sockets are open ends them with a code, and goes on when mended',
  async () => {
    await using world = await createWorld({ tables: [features(), features({ name: 'notes' })] })
    const { client, view } = await world.watch(alice)
    const notes = await client.subscribe({ sub: 'notes', table: 'notes', bbox: [8, 47, 9, 48] })
    await world.admin`create policy self on features as restrictive using (exists (select from features))`
    await world.admin`update features set name = 'x'`
    await client.until(() => view.ended !== null, 'it ended')
    expect(view.ended?.code).toBe('policy_error')
    const note = await world.put({ org: 'a', table: 'notes' })
    await client.until(() => notes.rows.has(note), 'the other table goes on')
    await world.admin`drop policy self on features`
    const id = await world.put({ org: 'a' })
    expect((await client.subscribe({ bbox: [8, 47, 9, 48] })).rows.has(id)).toBe(true)
  },
)

/** Ten megabytes: 16 bytes a corner. */
const TEN_MEGABYTES = `(select st_buffer(${IN_ZURICH}, 0.4, 163840))`

onServer(
  'I11: polygons of ten megabytes are written, changed in bulk and deleted; their subscriber is told, others are not',
  async () => {
    await using world = await createWorld()
    const onlooker = await world.watch(bob)
    const { client, view } = await world.watch(alice)
    await world.admin.unsafe(`insert into features (org_id, geom) values ('a', ${TEN_MEGABYTES})`)
    const [{ bytes } = { bytes: 0 }] = await world.admin`select st_memsize(geom) as bytes from features`
    expect(bytes).toBeGreaterThan(10_000_000)
    await client.until(() => view.ended !== null, 'it ended')
    expect(view.ended?.code).toBe('row_too_large')
    const again = await client.subscribe({ sub: 'again', bbox: [8, 47, 9, 48] })
    expect(again.ended?.code).toBe('row_too_large')
    await world.admin.unsafe(
      `insert into features (org_id, geom) select 'a', geom from features, generate_series(1, 9)`,
    )
    await world.admin`update features set geom = st_translate(geom, 0.01, 0), size = 1`
    await world.admin`update features set id = gen_random_uuid()`
    await world.admin`delete from features where org_id = 'a'`
    await world.barrier(onlooker.client, bob)
    // Each with its id: none fell back to "any row may be different".
    expect(await world.admin`select from datum.change where id is null`).toHaveLength(0)
    const free = await client.subscribe({ sub: 'free', bbox: [8, 47, 9, 48] })
    expect(free.ended).toBeNull()
    expect(free.rows.size).toBe(0)
  },
)
