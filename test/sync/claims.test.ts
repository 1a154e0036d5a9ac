/** How claims reach policies: every JSON type, odd names, absence, and nothing left behind. Invariants 2, 8 and 12. */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { asPrincipal } from '../../src/db/as-principal.ts'
import { createWorld, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'
import { mintToken, mintTokenOfText } from '../support/token.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

/** Row security under which `name` is the policy's expression's value: what a client sees is what a policy reads. */
const visibleIf = (expression: string) => `
  alter table features enable row level security;
  alter table features force row level security;
  create policy p on features using (${expression})`

describe('a claim of every JSON type', () => {
  const exp = Math.floor(Date.now() / 1000) + 3600
  const payload = `{"sub":"alice","exp":${exp},"text":"it's \\"ü\\" \\\\ x","empty":"","number":42,"huge":12345678901234567890,
    "precise":0.1000000000000000055511151231257827,"exponent":1e3,"negative":-7,"yes":true,"no":false,"nothing":null,
    "list":["a",1,null],"object":{"b":1,"a":{"c":"d"}},"datum":"x","with.dot":"dotted","a$b":"dollar","_under":"score",
    "https://example.com/org":"from a URL","cognito:groups":["g1","g2"],"client_id":"c","search_path":"evil","role":"member"}`
  const READS: readonly (readonly [sql: string, value: string])[] = [
    ["current_setting('datum.sub', true)", 'alice'],
    ["current_setting('datum.text', true)", `it's "ü" \\ x`],
    ["current_setting('datum.empty', true)", ''],
    ["current_setting('datum.number', true)", '42'],
    ["current_setting('datum.huge', true)", '12345678901234567890'],
    ["current_setting('datum.precise', true)", '0.1000000000000000055511151231257827'],
    ["current_setting('datum.negative', true)", '-7'],
    ["current_setting('datum.yes', true)", 'true'],
    ["current_setting('datum.no', true)", 'false'],
    ["current_setting('datum.nothing', true)", ''],
    ["(current_setting('datum.list', true)::jsonb)::text", '["a", 1, null]'],
    ["current_setting('datum.object', true)::jsonb->'a'->>'c'", 'd'],
    ["current_setting('datum.with.dot', true)", 'dotted'],
    ["current_setting('datum.a$b', true)", 'dollar'],
    ["current_setting('datum._under', true)", 'score'],
    ["current_setting('datum.NUMBER', true)", '42'],
    ["current_setting('datum.role', true)", 'member'],
    ["current_setting('datum.search_path', true)", 'evil'],
    ["datum.claim('sub')", 'alice'],
    ["datum.claim('yes')", 'true'],
    ["coalesce(datum.claim('empty'), 'NULL')", 'NULL'],
    ["coalesce(datum.claim('nothing'), 'NULL')", 'NULL'],
    ["coalesce(datum.claim('absent'), 'NULL')", 'NULL'],
    ["current_setting('request.jwt.claims', true)::jsonb->>'https://example.com/org'", 'from a URL'],
    ["current_setting('request.jwt.claims', true)::jsonb->'cognito:groups'->>1", 'g2'],
    ["current_setting('request.jwt.claims', true)::jsonb->>'huge'", '12345678901234567890'],
    ["current_setting('request.jwt.claims', true)::json->>'sub'", 'alice'],
  ]
  test('I2: reaches the policies with every digit', async () => {
    const any = READS.map(([sql], n) => `(size = ${n} and name = ${sql})`)
    await using world = await createWorld({ tables: [features({ policies: visibleIf(any.join(' or ')) })] })
    for (const [n, [, value]] of READS.entries()) await world.put({ name: value, size: n })
    const client = await world.open()
    await client.authenticate(await mintTokenOfText(payload))
    const view = await client.subscribe({ bbox: ZURICH })
    const seen = new Set([...view.rows.values()].map((row) => row.size))
    const missed = READS.filter((_, n) => !seen.has(n))
    expect(missed).toEqual([])
    await world.admin`update features set org_id = 'changed'`
    await client.until(
      () => [...view.rows.values()].every((row) => row.org_id === 'changed'),
      'changes are read alike',
    )
    expect(view.rows.size).toBe(seen.size)
  })
})

test('I8: a claim cannot reach settings beyond its prefix', async () => {
  await using world = await createWorld()
  await world.put({ org: 'b' })
  const hostile = {
    sub: 'mallory',
    org_id: 'x',
    role: 'postgres',
    search_path: 'evil',
    row_security: 'off',
    session_authorization: 'postgres',
    "org_id', 'b', true); --": 'x',
    'a"; drop table features; --': 'x',
    '': 'empty name',
    'org_id ': 'b',
    '1a': 'x',
    ünï: 'u',
    ['x'.repeat(300)]: 'long',
  }
  const { client, view } = await world.watch(hostile, { allowed: () => false })
  await world.put({ org: 'b' })
  await world.put({ org: 'x', at: [100, 0] })
  const outcome = await client.write([{ op: 'insert', columns: { org_id: 'b' } }])
  expect(outcome.edits).toMatchObject([{ status: 'rejected', code: 'forbidden' }])
  expect(view.rows.size).toBe(0)
})

test('I12: a claim that the token lacks reads the same on a fresh and on a used connection', async () => {
  // With `::uuid` an empty text is an error, which would end the subscription: NULL-safe or not, it must not vary.
  await using world = await createWorld({
    tables: [
      features({ policies: visibleIf(`coalesce(current_setting('datum.team', true), 'unset') = name`) }),
    ],
  })
  for (const name of ['', 'unset', 'red']) await world.put({ name })
  const names: unknown[] = []
  for (let round = 0; round < 12; round++) {
    // Each round uses up some connections with the claim set, then looks again without it.
    const without = await world.watch({ sub: `n${round}` })
    names.push([...without.view.rows.values()].map((row) => row.name))
    const red = await world.watch({ sub: `r${round}`, team: 'red' })
    expect([...red.view.rows.values()].map((row) => row.name)).toEqual(['red'])
    await without.client.close()
    await red.client.close()
  }
  expect(new Set(names.map((seen) => JSON.stringify(seen))).size).toBe(1)
})

test('I12: one socket’s claims are never another’s, whatever connection they share', async () => {
  await using world = await createWorld()
  const orgs = ['a', 'b', 'c', 'd', 'e', 'f']
  for (const org of orgs) for (let n = 0; n < 5; n++) await world.put({ org })
  const watchers = await Promise.all(
    orgs.flatMap((org) =>
      [1, 2, 3].map((n) =>
        world.watch({ sub: `${org}${n}`, org_id: org }, { allowed: (row) => row.org_id === org }),
      ),
    ),
  )
  const nobody = await world.watch({ sub: 'nobody' }, { allowed: () => false })
  for (let round = 0; round < 5; round++) await world.admin`update features set size = ${round}`
  for (const { client, view } of watchers)
    await client.until(
      () => view.rows.size === 5 && [...view.rows.values()].every((row) => row.size === 4),
      'the last round',
    )
  expect(nobody.view.rows.size).toBe(0)
})

test('I12: claims do not stay on a connection of the pool', async () => {
  await using world = await createWorld()
  const id = await world.put({ org: 'a' })
  const { client } = await world.watch(alice)
  await client.write([{ op: 'update', id, columns: { size: 1 } }])
  await client.write([{ op: 'update', id, columns: { org_id: 'b' } }])
  // More than the pool has connections, so that each of them is used for a principal and looked at afterwards.
  const many = <T>(work: () => Promise<T>) => Promise.all(Array.from({ length: 12 }, work))
  const { bulk, writes } = world.openDatabase()
  for (const [pool, access] of [
    [bulk, 'read only'],
    [writes, 'read write'],
  ] as const) {
    const scope = { settings: { 'datum.org_id': 'a' }, access, timeoutMs: 10_000 }
    const read = await many(() =>
      asPrincipal(pool, scope, async (tx) => (await tx`select from features`).length),
    )
    expect(new Set(read)).toEqual(new Set([1]))
    const left = await many(
      () =>
        pool`select coalesce(current_setting('datum.org_id', true), '') as org, (select count(*)::int from features) as rows`,
    )
    for (const [row] of left) expect(row).toMatchObject({ org: '', rows: 0 })
  }
  const nobody = await world.watch({ sub: 'nobody' })
  expect(nobody.view.rows.size).toBe(0)
})

test('datum.claim is there for every role and does not vary', async () => {
  await using world = await createWorld({
    tables: [features({ policies: visibleIf(`org_id = datum.claim('org_id')`) })],
  })
  const id = await world.put({ org: 'a' })
  await world.put({ org: 'b' })
  await world.put({ org: null })
  await world.put({ org: '' })
  const { client, view } = await world.watch(alice)
  expect([...view.rows.keys()]).toEqual([id])
  const nobody = await world.watch({ sub: 'x' }, { allowed: () => false })
  const empty = await world.watch({ sub: 'y', org_id: '' }, { allowed: () => false })
  await world.admin`update features set size = 1`
  await client.until(() => view.rows.get(id)?.size === 1, 'changed')
  await world.barrier(client, alice)
  expect(nobody.view.rows.size + empty.view.rows.size).toBe(0)
})

describe('policies that raise errors', () => {
  const uuidOrg = {
    name: 'features',
    geometryColumn: 'geom',
    sql: 'create table features (id uuid primary key default gen_random_uuid(), org_id uuid, name text, size int, geom geometry(Geometry, 4326))',
    policies: visibleIf(`org_id = current_setting('datum.org_id', true)::uuid`),
  }
  const [orgA, orgB] = ['aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa', 'bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb']

  test('I8: the subscription ends with policy_error, and the others notice nothing', async () => {
    await using world = await createWorld({ tables: [uuidOrg] })
    const id = await world.put({ org: orgA })
    const good = await world.watch({ sub: 'good', org_id: orgA })
    const bad = await world.connect({ sub: 'bad', org_id: 'no uuid' }, { allowed: () => false })
    const view = await bad.subscribe({ bbox: ZURICH })
    expect(view.ended?.code).toBe('policy_error')
    expect(view.ended?.message).not.toContain('no uuid')
    await world.admin`update features set size = 1`
    await good.client.until(() => good.view.rows.get(id)?.size === 1, 'the good one goes on')
    await bad.ping()
    const { edits } = await bad.write([{ op: 'update', id, columns: { size: 2 } }])
    expect(edits[0]?.status).toBe('rejected')
  })

  test('I8: an error that comes later ends only the subscription that it comes to', async () => {
    // The division fails for one class only, once a row makes it.
    await using world = await createWorld({
      tables: [
        features({
          policies: visibleIf(
            `org_id = datum.claim('org_id') and 100 / (size - datum.claim('n')::int) < 1000`,
          ),
        }),
      ],
    })
    const one = await world.watch({ sub: '1', org_id: 'a', n: 1 })
    const two = await world.watch({ sub: '2', org_id: 'a', n: 2 })
    const id = await world.put({ org: 'a', size: 5 })
    await one.client.until(() => one.view.rows.has(id), 'one has it')
    await two.client.until(() => two.view.rows.has(id), 'two has it')
    await world.admin`update features set size = 2 where id = ${id}`
    await one.client.until(() => one.view.rows.get(id)?.size === 2, 'one goes on')
    await two.client.until(() => two.view.ended !== null, 'two ended')
    expect(two.view.ended?.code).toBe('policy_error')
    await world.admin`update features set size = 9 where id = ${id}`
    await one.client.until(() => one.view.rows.get(id)?.size === 9, 'one still goes on')
    const again = await two.client.subscribe({ bbox: ZURICH })
    expect([...again.rows.keys()]).toEqual([id])
  })

  test('I8: a swap to claims that make the policy fail ends the subscription; a swap back lets it be opened again', async () => {
    await using world = await createWorld({ tables: [uuidOrg] })
    await world.put({ org: orgA })
    const { client, view } = await world.watch({ sub: 'u', org_id: orgA })
    await client.authenticate(await mintToken({ sub: 'u', org_id: 'broken' }), () => false)
    await client.until(() => view.ended !== null, 'it ended')
    expect(view.ended?.code).toBe('policy_error')
    await client.authenticate(await mintToken({ sub: 'u', org_id: orgB }), (row) => row.org_id === orgB)
    const id = await world.put({ org: orgB })
    expect([...(await client.subscribe({ bbox: ZURICH })).rows.keys()]).toEqual([id])
  })
})

test('I2: policies changed while sockets are open apply to what is sent from then on', async () => {
  await using world = await createWorld()
  const id = await world.put({ org: 'a', name: 'before' })
  const { client, view } = await world.watch(alice)
  expect(view.rows.size).toBe(1)
  await world.admin.unsafe(`drop policy tenant_isolation on features;
    create policy tenant_isolation on features using (org_id = current_setting('datum.org_id', true) and size > 10)`)
  await world.admin`update features set name = 'after' where id = ${id}`
  await client.until(() => !view.rows.has(id) || view.ended !== null, 'the row is not shown any longer')
  expect(JSON.stringify(client.frames)).not.toContain('after')
})
