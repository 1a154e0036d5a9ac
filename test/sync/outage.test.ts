/** What happens to the process when Postgres is there and does not answer. Invariant 5. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Database } from '../../src/db/database.ts'
import { install } from '../../src/db/install.ts'
import { openPostgres } from '../../src/db/postgres.ts'
import { createLog } from '../../src/observe/log.ts'
import { startProgram } from '../cli/run-program.ts'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'
import { APP_ROLE } from '../support/postgres.ts'
import { proxyTo } from '../support/proxy.ts'
import { features, tableConfig } from '../support/table-spec.ts'
import { mintToken, TEST_SECRET } from '../support/token.ts'
import { WireClient } from '../support/wire-client.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

test('I5: a Postgres that hangs and takes no new connection does not end the process', async () => {
  const policies = `alter table features enable row level security; alter table features force row level security;
    create policy p on features using (org_id = current_setting('datum.org_id', true) and (name is distinct from 'slow' or pg_sleep(1) is not null))`
  await using world = await createWorld({ tables: [features({ policies })] })
  if (world.appUrl === null) return
  using proxy = await proxyTo(world.appUrl)
  const folder = await mkdtemp(join(tmpdir(), 'datum-review-'))
  await Bun.write(
    join(folder, 'datum.yaml'),
    'table: {name: features, col_geom: geom}\nauth: {jwt_algorithm: HS256}\n',
  )
  const program = startProgram(folder, ['serve', '--port', '0', '-db', proxy.url], {
    JWT_SECRET: new TextDecoder().decode(TEST_SECRET),
  })
  try {
    const { url: at } = await program.ready()
    const client = await WireClient.open(`${at.replace('http', 'ws')}/ws`)
    await client.authenticate(await mintToken({ sub: 'alice', org_id: 'a' }))
    const view = await client.subscribe({ bbox: [8, 47, 9, 48] })
    expect(view.ended).toBeNull()
    // A shared read that is under way when the network goes.
    await world.put({ org: 'a', name: 'slow' })
    await Bun.sleep(500)
    proxy.cut(true)
    const ended = await Promise.race([program.outcome, Bun.sleep(8_000)])
    if (ended) console.error(ended.code, ended.stderr.slice(-1500))
    expect(ended).toBeUndefined()
    program.kill('SIGKILL')
    // Nor does the cancellation of the read, which finds nobody to be told, leave a stack in the log.
    expect((await program.outcome).stderr).not.toMatch(/^\s+at /m)
  } finally {
    program.kill('SIGKILL')
  }
})

test('I5: connections that go dead without a word are noticed, and the feed goes on over new ones', async () => {
  await using world = await createWorld()
  if (world.appUrl === null) return
  using proxy = await proxyTo(world.appUrl)
  const database = openPostgres(proxy.url, createLog('error'))
  const server = await world.addServer({ database })
  const client = await world.connect({ sub: 'alice', org_id: 'a' }, { server })
  const view = await client.subscribe({ bbox: [8, 47, 9, 48] })
  proxy.cut(false)
  const id = await world.put({ org: 'a' })
  const seen = await Promise.race([
    client.until(() => view.rows.has(id), 'the row').then(() => 'seen'),
    Bun.sleep(40_000).then(() => 'not seen'),
  ])
  const ready = await fetch(`${server.url}/readyz`)
  expect({ seen, ready: ready.status }).toEqual({ seen: 'seen', ready: 200 })
})

test('I5: a feed whose doorbell is not answered goes on over new connections, as when the log is not', async () => {
  await using world = await createWorld({ start: false })
  if (world.appUrl === null) return
  await install(world.admin, { tables: [tableConfig(features())], role: APP_ROLE })
  const real = world.openDatabase()
  let isStuck = true
  const feed = () =>
    new Proxy(real.feed, {
      apply(target, self, [strings, ...values]) {
        const isDoorbell = (strings as readonly string[]).join('').includes('pg_try_advisory_lock_shared')
        return isStuck && isDoorbell
          ? new Promise(() => {})
          : Reflect.apply(target, self, [strings, ...values])
      },
    })
  const database: Database = Object.create(real, {
    feed: { get: feed },
    renew: {
      value() {
        isStuck = false
        real.renew()
      },
    },
  })
  const server = await world.addServer({ database, log: createLog('silent') })
  const { client, view } = await world.watch({ sub: 'alice', org_id: 'a' }, { server })
  const id = await world.put({ org: 'a' })
  await client.until(() => view.rows.has(id), 'the row')
  expect(isStuck).toBe(false)
})

test('I5, I7: a proxy that has no Postgres takes connections and closes them: sockets stay, and all goes on when it has', async () => {
  await using world = await createWorld()
  if (world.appUrl === null) return
  using proxy = await proxyTo(world.appUrl)
  const server = await world.addServer({ database: openPostgres(proxy.url, createLog('silent')) })
  const untilReadiness = async (status: number) => {
    while ((await fetch(`${server.url}/readyz`)).status !== status) await Bun.sleep(50)
  }
  const client = await world.connect({ sub: 'alice', org_id: 'a' }, { server })
  const view = await client.subscribe({ bbox: [8, 47, 9, 48] })
  proxy.turnAway(true)
  const began = performance.now()
  await untilReadiness(503)
  const id = await world.put({ org: 'a' })
  const batch = crypto.randomUUID()
  const edits = [{ op: 'delete', id }] as const
  client.send({ type: 'write', batch, edits })
  expect(await client.next('unavailable')).toMatchObject({ batch })
  await Bun.sleep(1_000)
  // Some pools of a few connections, each of which waits a tenth of a second and more before it tries again.
  expect(proxy.turnedAway).toBeLessThan((performance.now() - began) / 20)
  proxy.turnAway(false)
  await untilReadiness(200)
  await client.until(() => view.rows.has(id), 'the row of the time without')
  expect((await client.write(edits, { batch })).edits).toMatchObject([{ status: 'applied' }])
  await client.until(() => !view.rows.has(id), 'the end of the row')
})
