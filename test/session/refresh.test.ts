/** A new token on the open socket: the principal is swapped, and only the difference is sent. Invariant 6. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { CloseCode } from '../../src/wire/close-codes.ts'
import { createWorld, onlyOrg, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'
import { mintToken } from '../support/token.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

/** An `exp` that is far enough away for a slow machine to connect before. */
const inSeconds = (seconds: number) => Math.floor(Date.now() / 1000) + seconds

/** Rows of several organisations by one claim with a list: `{"orgs": ["a","b"]}`. */
const listPolicy = `
  alter table features enable row level security;
  alter table features force row level security;
  create policy listed on features
    using (org_id in (select jsonb_array_elements_text(datum.claim('orgs')::jsonb)))`

test('I6: other claims retract and add exactly the difference, no snapshot', async () => {
  await using world = await createWorld({ tables: [features({ policies: listPolicy })] })
  const kept = await Promise.all([1, 2, 3].map((n) => world.put({ org: 'both', name: `both ${n}` })))
  const lost = await world.put({ org: 'a' })
  const won = await world.put({ org: 'b' })
  const among =
    (...orgs: string[]) =>
    (row: { readonly [column: string]: unknown }) =>
      orgs.includes(String(row.org_id))
  const { client, view } = await world.watch(
    { sub: 'u', orgs: ['a', 'both'] },
    { allowed: among('a', 'both') },
  )
  expect([...view.rows.keys()].sort()).toEqual([lost, ...kept].sort())

  // What was written just before may come twice, so it is let pass before counting.
  await world.barrier(client, { org_id: 'both' })
  const [rowsBefore, goneBefore, from] = [view.rowsReceived, view.goneReceived, client.frames.length]
  const after = { sub: 'u', orgs: ['both', 'b'] }
  await client.authenticate(await mintToken(after), among('both', 'b'))
  await client.until(() => view.rows.has(won) && !view.rows.has(lost), 'the difference is applied')
  await world.untilTrue(client, view, after)
  await client.ping()
  expect(view.rowsReceived - rowsBefore).toBe(1)
  expect(view.goneReceived - goneBefore).toBe(1)
  expect(client.frames.slice(from).filter((frame) => frame.type === 'subscribed')).toEqual([])
})

test('I6: the same claims with another expiry send no row', async () => {
  await using world = await createWorld()
  for (let n = 0; n < 5; n++) await world.put({ org: 'a' })
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  // What was written just before may come twice, so it is let pass before counting.
  await world.barrier(client, alice)
  const rowsBefore = view.rowsReceived
  const exp = Math.floor(Date.now() / 1000) + 7200
  expect(
    await client.authenticate(await mintToken({ ...alice, exp, iat: exp - 1, jti: 'another' })),
  ).toMatchObject({
    expiresAt: exp,
  })
  await world.barrier(client, alice)
  expect(view.rowsReceived - rowsBefore).toBe(1)
  expect(view.rows.size).toBe(5)
})

test('I6: after a swap, changes follow the new claims only', async () => {
  await using world = await createWorld()
  const [inA, inB] = [await world.put({ org: 'a' }), await world.put({ org: 'b' })]
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  const asB = { sub: 'alice', org_id: 'b' }
  await client.authenticate(await mintToken(asB), onlyOrg('b'))
  await world.admin`update features set name = 'changed' where id in ${world.admin([inA, inB])}`
  await client.until(() => view.rows.get(inB)?.name === 'changed', 'the row of b has changed')
  expect([...view.rows.keys()]).toEqual([inB])
  await world.admin`delete from features where id = ${inA}`
  await world.barrier(client, asB)
  expect([...view.rows.keys()]).toEqual([inB])
})

test('I6: claims swapped to and fro while rows change never show what only the old ones allowed', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
  const ids = await Promise.all(['a', 'b', 'a', 'b'].map((org) => world.put({ org })))
  for (let round = 0; round < 20; round++) {
    const org = round % 2 === 0 ? 'b' : 'a'
    const swapped = client.authenticate(await mintToken({ sub: 'alice', org_id: org }), onlyOrg(org))
    const changed = world.admin`
      update features set size = ${round}, org_id = case when random() < 0.3 then ${org} else org_id end
      where id in ${world.admin(ids)}`
    await Promise.all([swapped, changed])
  }
  await world.untilTrue(client, view, alice)
  expect(client.violations).toEqual([])
})

test('I6: a write sent before a swap runs under the claims it was submitted with', async () => {
  await using world = await createWorld()
  const { client } = await world.watch(alice)
  const batch = crypto.randomUUID()
  const toB = await mintToken({ sub: 'alice', org_id: 'b' })
  client.send({ type: 'write', batch, edits: [{ op: 'insert', columns: { org_id: 'a', name: 'mine' } }] })
  client.send({ type: 'auth', token: toB })
  expect((await client.next('outcome')).edits).toMatchObject([{ status: 'applied' }])
  const late = await client.write([{ op: 'insert', columns: { org_id: 'a', name: 'too late' } }])
  expect(late.edits).toMatchObject([{ status: 'rejected', code: 'forbidden' }])
})

test('a token of another sub closes with 4401', async () => {
  await using world = await createWorld()
  for (const other of [{ sub: 'bob', org_id: 'a' }, { org_id: 'a' }, { sub: 'Alice', org_id: 'a' }]) {
    const { client } = await world.watch(alice)
    client.send({ type: 'auth', token: await mintToken(other) })
    expect((await client.untilClosed()).code).toBe(CloseCode.unauthorized)
  }
})

test('a token of the same sub from another issuer closes with 4401: it may be another user', async () => {
  const issuers = ['https://one.test', 'https://two.test']
  await using world = await createWorld({ auth: { issuers } })
  const ofIssuer = (iss: string | undefined) => ({ ...alice, iss })
  const { client } = await world.watch(ofIssuer(issuers[0]))
  await client.authenticate(await mintToken(ofIssuer(issuers[0])))
  client.send({ type: 'auth', token: await mintToken(ofIssuer(issuers[1])) })
  expect((await client.untilClosed()).code).toBe(CloseCode.unauthorized)
})

test('a refresh that does not verify closes with 4401, and what follows it is not obeyed', async () => {
  await using world = await createWorld()
  const { client } = await world.watch(alice)
  client.send({ type: 'auth', token: await mintToken({ ...alice, exp: 1 }) })
  client.send({
    type: 'write',
    batch: crypto.randomUUID(),
    edits: [{ op: 'insert', columns: { org_id: 'a' } }],
  })
  expect((await client.untilClosed()).code).toBe(CloseCode.unauthorized)
  expect(await world.admin`select 1 from features`).toHaveLength(0)
})

test('without enforce_expiry a token holds for the connection', async () => {
  await using world = await createWorld()
  const exp = inSeconds(4)
  const { client } = await world.watch({ ...alice, exp })
  await Bun.sleep(exp * 1000 - Date.now() + 500)
  await world.barrier(client, alice)
})

test('with enforce_expiry the socket is closed with 4401 at exp', async () => {
  await using world = await createWorld({ auth: { enforceExpiry: true } })
  const { client } = await world.watch({ ...alice, exp: inSeconds(4) })
  expect((await client.untilClosed()).code).toBe(CloseCode.unauthorized)
})

test('with enforce_expiry a refresh moves the end', async () => {
  await using world = await createWorld({ auth: { enforceExpiry: true } })
  const exp = inSeconds(4)
  const { client } = await world.watch({ ...alice, exp })
  await client.authenticate(await mintToken(alice))
  await Bun.sleep(exp * 1000 - Date.now() + 500)
  await world.barrier(client, alice)
})

test('I6: a refresh reaches every subscription of the socket', async () => {
  await using world = await createWorld({
    tables: [features(), features({ name: 'places', geometry: null })],
  })
  await world.put({ org: 'a' })
  const wonFeature = await world.put({ org: 'b' })
  await world.put({ org: 'a', table: 'places' })
  const wonPlace = await world.put({ org: 'b', table: 'places' })
  const client = await world.connect(alice, { allowed: onlyOrg('a') })
  const onMap = await client.subscribe({ sub: 'map', bbox: ZURICH })
  const inList = await client.subscribe({ sub: 'list', table: 'places' })
  await client.authenticate(await mintToken({ sub: 'alice', org_id: 'b' }), onlyOrg('b'))
  await client.until(
    () => onMap.rows.has(wonFeature) && inList.rows.has(wonPlace) && onMap.rows.size + inList.rows.size === 2,
    'both views are of b',
  )
})
