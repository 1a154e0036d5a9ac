/** Several server processes on one database, and connections to Postgres that die. Invariant 5. Real Postgres only. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { backendKind } from '../support/backend.ts'
import { createWorld, onlyOrg, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
// The embedded Postgres has one session, in one process: there is nothing that a second server could connect to.
const realOnly = (await backendKind()) === 'postgres' ? test : test.skip

realOnly('I5: what is written through one server is seen through the other', async () => {
  await using world = await createWorld()
  const second = await world.addServer()
  const one = await world.watch(alice, { allowed: onlyOrg('a') })
  const two = await world.watch(alice, { server: second, allowed: onlyOrg('a') })
  const id = crypto.randomUUID()
  const geom = { type: 'Point', coordinates: [8.5, 47.5] }
  await one.client.write([{ op: 'insert', columns: { id, org_id: 'a', name: 'first', geom } }])
  await two.client.until(() => two.view.rows.has(id), 'two sees it')
  await two.client.write([{ op: 'update', id, columns: { name: 'second' } }])
  await one.client.until(() => one.view.rows.get(id)?.name === 'second', 'one sees it')
})

realOnly('I5: a view made at one server is resumed at the other', async () => {
  await using world = await createWorld()
  const second = await world.addServer()
  const [kept, deleted] = [await world.put({ org: 'a' }), await world.put({ org: 'a' })]
  const { client, view } = await world.watch(alice)
  // What was written just before may come twice, so it is let pass before counting.
  await world.barrier(client, alice)
  client.kill()
  await world.admin`delete from features where id = ${deleted}`
  const again = await world.connect(alice, { server: second })
  const resumed = await again.resume(view, { bbox: ZURICH })
  expect(resumed.resumed).toBe(true)
  expect([...resumed.rows.keys()]).toEqual([kept])
  expect(resumed.rowsReceived).toBe(0)
})

realOnly('I7: a batch sent to both servers is applied once', async () => {
  await using world = await createWorld()
  const second = await world.addServer()
  const one = await world.connect(alice)
  const two = await world.connect(alice, { server: second })
  const batch = crypto.randomUUID()
  const edits = [{ op: 'insert', columns: { org_id: 'a', name: 'once' } }] as const
  const [first, other] = await Promise.all([one.write(edits, { batch }), two.write(edits, { batch })])
  expect(first.edits).toEqual(other.edits)
  expect(await world.admin`select 1 from features`).toHaveLength(1)
})

realOnly(
  'I5: a server that stops closes its sockets with 1012; nothing is lost for those that come back',
  async () => {
    await using world = await createWorld()
    const { client, view } = await world.watch(alice)
    const id = await world.put({ org: 'a' })
    await client.until(() => view.rows.has(id), 'it is there')
    const second = await world.addServer()
    await world.server.stop()
    expect((await client.untilClosed()).code).toBe(1012)
    const late = await world.put({ org: 'a' })
    const again = await world.connect(alice, { server: second })
    const resumed = await again.resume(view, { bbox: ZURICH })
    expect([...resumed.rows.keys()].sort()).toEqual([id, late].sort())
  },
)

realOnly('I5: every connection of the server is terminated, over and over: no change is missed', async () => {
  await using world = await createWorld()
  const { client, view } = await world.watch(alice)
  for (let round = 0; round < 5; round++) {
    const before = await world.put({ org: 'a', name: `before ${round}` })
    await world.admin`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and usename = 'datum_app'`
    const after = await world.put({ org: 'a', name: `after ${round}` })
    if (view.ended !== null || client.closed) break
    await client.until(() => view.rows.has(before) && view.rows.has(after), `round ${round} is there`)
  }
  expect(client.closed).toBeNull()
  expect(view.ended).toBeNull()
  await world.untilTrue(client, view, alice)
})

realOnly('I5: connections die while a client writes: each batch is applied exactly once', async () => {
  await using world = await createWorld()
  const { client } = await world.watch(alice)
  const batches = Array.from({ length: 30 }, () => crypto.randomUUID())
  const killer = (async () => {
    for (let round = 0; round < 5; round++) {
      await world.admin`
        select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and usename = 'datum_app'`
      await client.ping()
    }
  })()
  for (const [n, batch] of batches.entries()) {
    const edits = [{ op: 'insert', columns: { org_id: 'a', size: n } }] as const
    expect((await client.write(edits, { batch })).edits).toMatchObject([{ status: 'applied' }])
  }
  await killer
  const rows = await world.admin`select size, count(*)::int as n from features group by size`
  expect(rows.filter((row) => row.n !== 1)).toEqual([])
  expect(rows).toHaveLength(batches.length)
})
