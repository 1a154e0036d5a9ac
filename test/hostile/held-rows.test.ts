/** How many rows a view, a socket and the process hold, whatever clients ask for. Invariant 10. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { ROWS_PER_SOCKET_MAX, ROWS_PER_SUBSCRIPTION_MAX } from '../../src/wire/limits.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

setDefaultTimeout(2 * TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

/** The embedded Postgres takes minutes for so many rows, and what is bounded is not in it. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

/** Rows in the middle of Zurich, with ids that are short, since it is their number that is tested. */
async function putMany(world: World, count: number, at = 8.5): Promise<void> {
  await world.admin`
    insert into features (org_id, geom)
    select 'a', st_setsrid(st_makepoint(${at}, 47.5), 4326) from generate_series(1, ${count})`
}

const small = features({ id: 'integer', geometry: 'geometry(Point, 4326)' })

onServer(
  'I10: a view of more rows than it may hold ends with too_many_rows, at once or when it grows',
  async () => {
    await using world = await createWorld({ tables: [small] })
    await putMany(world, ROWS_PER_SUBSCRIPTION_MAX)
    const { client, view } = await world.watch(alice)
    expect(view.rows.size).toBe(ROWS_PER_SUBSCRIPTION_MAX)
    await world.put({ org: 'a' })
    await client.until(() => view.ended, 'the end')
    expect(view.ended?.code).toBe('too_many_rows')
    expect((await client.subscribe({ bbox: ZURICH })).ended?.code).toBe('too_many_rows')
    // What it held is held no more, and the socket goes on.
    expect(await heldRows(world)).toBe(0)
    expect((await client.subscribe({ bbox: [0, 0, 1, 1] })).ended).toBeNull()
  },
)

onServer('I10: a socket’s views together hold no more than a socket may, resumed ones included', async () => {
  await using world = await createWorld({ tables: [small] })
  const each = 80_000
  await putMany(world, each)
  const client = await world.connect(alice)
  const fitting = Math.floor(ROWS_PER_SOCKET_MAX / each)
  for (let n = 0; n < fitting; n++) await client.subscribe({ sub: `s${n}`, bbox: ZURICH })
  expect(await heldRows(world)).toBe(fitting * each)
  const beyond = await client.subscribe({ sub: 'beyond', bbox: ZURICH })
  expect(beyond.ended?.code).toBe('too_many_rows')
  expect(client.view('s0').ended).toBeNull()
  // What a client says it holds counts like what it was sent.
  const { cursor, rows } = client.view('s0')
  const resumed = await client.subscribe({
    sub: 'resumed',
    bbox: ZURICH,
    resume: { cursor: cursor!, held: [...rows.keys()] },
  })
  expect(resumed.ended?.code).toBe('too_many_rows')
  client.unsubscribe('s0')
  expect((await client.subscribe({ sub: 'beyond', bbox: ZURICH })).ended).toBeNull()
  expect(await heldRows(world)).toBe(fitting * each)
  // Another socket has its own.
  expect((await world.watch(alice)).view.ended).toBeNull()
})

test('I9, I10: a process that is full refuses views that open or move, and keeps those it has', async () => {
  await using world = await createWorld({ tables: [small], config: { heldRows: 250 } })
  await putMany(world, 100)
  await putMany(world, 100, 20.5)
  const first = await world.watch(alice)
  const second = await world.watch(alice)
  const third = await world.watch(alice)
  expect(third.view.ended?.code).toBe('too_many_rows')
  await second.client.setBbox('s', 1, [8, 47, 21, 48])
  expect(second.view.ended?.code).toBe('too_many_rows')
  // The first has its rows still, and gets new ones, even beyond.
  await putMany(world, 300)
  await first.client.until(() => first.view.rows.size === 400, 'the new rows')
  await world.untilTrue(first.client, first.view, alice)
  // Room is made by leaving, and by rows that go.
  await world.admin`delete from features where st_x(geom) < 10 and id > 250`
  await world.untilTrue(first.client, first.view, alice)
  const held = first.view.rows.size
  expect(await heldRows(world)).toBe(held)
  first.client.kill()
  await first.client.untilClosed()
  const last = await world.watch(alice)
  expect(last.view.rows.size).toBe(held)
})

async function heldRows(world: World): Promise<number> {
  const text = await (await fetch(`${world.server.url}/metrics`)).text()
  return Number(/^datum_held_rows (\d+)$/m.exec(text)?.[1])
}
