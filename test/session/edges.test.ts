/** Smaller things, each on its own. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { connect } from 'node:net'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'
import { mintToken } from '../support/token.ts'

/** The embedded Postgres is one session: whatever runs there holds up everything, as docs/ARCHITECTURE.md says. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(TEST_TIMEOUT_MS)
const alice = { sub: 'alice', org_id: 'a' }

onServer(
  'I4: a lock of the application on the table (VACUUM FULL, ALTER TABLE) for 20 s ends no view',
  async () => {
    await using world = await createWorld()
    await world.put({ org: 'a' })
    const { client, view } = await world.watch(alice)
    await world.admin.begin(async (transaction) => {
      await transaction`lock table features in access exclusive mode`
      client.send({ type: 'bbox', sub: 's', seq: 1, bbox: [8, 47, 9.1, 48.1] })
      await Bun.sleep(20_000)
    })
    await client.until(() => view.complete === 1 || view.ended !== null, 'complete or ended')
    expect(view.ended).toBeNull()
  },
)

onServer('I4: a lock of the application that comes right behind a change ends no view', async () => {
  await using world = await createWorld()
  const id = await world.put({ org: 'a', size: 0 })
  const { client, view } = await world.watch(alice)
  const untilWaiting = async (count: number) => {
    const waiting = () =>
      world.admin`select from pg_locks where relation = 'features'::regclass and not granted`
    while ((await waiting()).length < count) await Bun.sleep(20)
  }
  const { promise: mayGo, resolve: go } = Promise.withResolvers<void>()
  const first = world.admin.begin(async (transaction) => {
    await transaction`lock table features in access exclusive mode`
    go()
    await untilWaiting(2)
  })
  await mayGo
  const change = world.admin`update features set size = 1 where id = ${id}`.execute()
  await untilWaiting(1)
  // Next in line: the change commits, and nobody reads it for longer than the shared read and the view's own may wait.
  const second = world.admin.begin(async (transaction) => {
    await transaction`lock table features in access exclusive mode`
    await Bun.sleep(9_000)
  })
  await Promise.all([first, change, second])
  await client.until(() => view.ended ?? view.rows.get(id)?.size === 1, 'the change, or the end')
  expect(view.ended).toBeNull()
})

test('a number that JSON.parse makes Infinity is refused, not written as NULL', async () => {
  await using world = await createWorld({ tables: [features({ columns: ', height float8' })] })
  const id = await world.put({ org: 'a' })
  await world.admin`update features set height = 5`
  const { client } = await world.watch(alice)
  const batch = crypto.randomUUID()
  client.sendRaw(
    `{"type":"write","batch":"${batch}","edits":[{"op":"update","id":"${id}","columns":{"height":1e999}}]}`,
  )
  const outcome = await client.until(
    () => client.closed ?? client.frames.find((frame) => frame.type === 'outcome'),
    'an answer',
  )
  const [row] = await world.admin`select height from features where id = ${id}`
  expect({ outcome: JSON.stringify(outcome).slice(0, 60), height: row?.height }).toMatchObject({ height: 5 })
})

test('an id with a lone surrogate is no other row’s id', async () => {
  await using world = await createWorld({ tables: [features({ id: 'text' })] })
  await world.put({ id: '\ufffd', org: 'a' })
  const { client, view } = await world.watch(alice)
  client.sendRaw(`{"type":"write","batch":"${crypto.randomUUID()}","edits":[{"op":"delete","id":"\\ud800"}]}`)
  await client.next('outcome').catch(() => {})
  await world.barrier(client, alice)
  expect(view.rows.size).toBe(1)
})

test('enforce_expiry and clock_tolerance agree: a token that is accepted is not expired at once', async () => {
  await using world = await createWorld({ auth: { enforceExpiry: true, clockToleranceSeconds: 60 } })
  const client = await world.open()
  await client.authenticate(await mintToken({ ...alice, exp: Math.floor(Date.now() / 1000) - 5 }))
  const view = await client.subscribe({ bbox: ZURICH })
  expect(view.complete).toBe(0)
  await Bun.sleep(500)
  expect(client.closed).toBeNull()
})

for (const host of ['a b', '', '[', 'x:99999999', '%'])
  test(`a request with the Host "${host}" shows no source code`, async () => {
    await using world = await createWorld()
    const socket = connect(world.server.port, '127.0.0.1')
    let answer = ''
    socket.on('data', (data) => {
      answer += data.toString()
    })
    socket.on('error', () => {})
    socket.write(`GET /healthz HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    await Promise.race([new Promise((resolve) => socket.on('close', resolve)), Bun.sleep(2_000)])
    socket.destroy()
    if (!/^HTTP\/1.1 (2|4)/.test(answer)) console.error(answer.slice(0, 200))
    expect(answer).not.toMatch(/src\/http|node_modules|\.ts:/)
    expect((await fetch(`${world.server.url}/healthz`)).status).toBe(200)
  })
