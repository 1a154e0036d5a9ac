/**
 * A Postgres that answers, and cannot be worked with: sessions with the wrong rights, a schema `datum` that is away, a log
 * that was dropped, no connection left to listen on. As while it is away, sockets stay, edits and views wait, `/readyz`
 * says so, and all goes on by itself when somebody has mended it. Invariants 5 and 7.
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { install } from '../../src/db/install.ts'
import { openPostgres } from '../../src/db/postgres.ts'
import { createLog, type Log } from '../../src/observe/log.ts'
import type { RunningServer } from '../../src/server.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, point, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { APP_ROLE } from '../support/postgres.ts'
import { proxyTo } from '../support/proxy.ts'
import { features, tableConfig } from '../support/table-spec.ts'

setDefaultTimeout(2 * TEST_TIMEOUT_MS)
const onServer = test.skipIf((await backendKind()) === 'embedded')

const alice = { sub: 'alice', org_id: 'a' }
const edits = [{ op: 'insert', columns: { org_id: 'a', name: 'waits', geom: point(8.5, 47.5) } }] as const

async function untilReadiness(server: RunningServer, status: number): Promise<void> {
  const giveUpAt = Date.now() + TEST_TIMEOUT_MS
  while ((await fetch(`${server.url}/readyz`)).status !== status) {
    if (Date.now() > giveUpAt) throw new Error(`/readyz never was ${status}`)
    await Bun.sleep(100)
  }
}

/** What a client sees while `away` lasts, and after it. */
async function whileAway(
  world: World,
  server: RunningServer,
  away: () => Promise<void>,
  back: () => Promise<void>,
) {
  const { client, view } = await world.watch(alice, { server })
  await away()
  await untilReadiness(server, 503)
  expect((await fetch(`${server.url}/healthz`)).status).toBe(200)
  const batch = crypto.randomUUID()
  client.send({ type: 'write', batch, edits: [...edits] })
  expect(await client.next('unavailable')).toMatchObject({ batch })
  const late = client.startSubscribe({ sub: 'late', bbox: ZURICH })
  // Long enough for it to have tried, and to try again.
  await Bun.sleep(1_000)
  await client.ping()
  expect([view.ended, late.ended]).toEqual([null, null])
  await world.put({ org: 'a', name: 'by the application' })
  await back()
  await untilReadiness(server, 200)
  expect((await client.write(edits, { batch })).edits).toMatchObject([{ status: 'applied' }])
  await client.until(() => late.complete === 0, 'the view that opened meanwhile')
  await world.untilTrue(client, view, alice)
  await world.untilTrue(client, late, alice)
}

onServer(
  'I5, I7: sessions of a role that may do nothing are left for new ones, once it may again',
  async () => {
    await using world = await createWorld()
    const [database] = await world.admin<{ name: string }[]>`select quote_ident(current_database()) as name`
    const said: string[] = []
    const log: Log = { ...createLog('silent'), error: (words: unknown) => said.push(String(words)) } as never
    const server = await world.addServer({ log })
    const setting = `alter role ${APP_ROLE} in database ${database!.name}`
    await world.admin.unsafe(`grant pg_monitor to ${APP_ROLE}`)
    try {
      await whileAway(
        world,
        server,
        async () => {
          // Sessions keep the role that they began with, as they do when one was dropped and made anew.
          await world.admin.unsafe(`${setting} set role = 'pg_monitor'`)
          await world.admin`
          select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and application_name = 'datum-server'`
        },
        async () => {
          await world.admin.unsafe(`${setting} reset role`)
        },
      )
    } finally {
      await world.admin.unsafe(`revoke pg_monitor from ${APP_ROLE}`)
    }
    expect(said.filter((words) => words.includes('42501'))).toEqual([
      "The change log cannot be read (42501): run `datum-server setup` again, for this server's role. Sockets stay open; trying again.",
    ])
  },
)

onServer('I5, I7: while the schema `datum` is away edits and views wait for it', async () => {
  await using world = await createWorld()
  await whileAway(
    world,
    world.server,
    async () => void (await world.admin`drop schema datum cascade`),
    () => install(world.admin, { tables: [tableConfig(features())], role: APP_ROLE }),
  )
})

onServer('I5: what happened while there was no log is seen once there is one again', async () => {
  await using world = await createWorld()
  const gone = await world.put({ org: 'a' })
  const { client, view } = await world.watch(alice)
  const other = await world.watch(alice)
  other.client.kill()
  await world.admin`drop table datum.change`
  await world.admin`delete from features where id = ${gone}`
  await world.put({ org: 'a' })
  await install(world.admin, { tables: [tableConfig(features())], role: APP_ROLE })
  await world.untilTrue(client, view, alice)
  const again = await world.connect(alice)
  await world.untilTrue(again, await again.resumeShortly(other.view, { bbox: ZURICH }), alice)
})

onServer('I5: however often LISTEN was tried in vain, a ring is heard once', async () => {
  await using world = await createWorld({ start: false })
  using proxy = await proxyTo(world.appUrl!)
  const database = openPostgres(proxy.url, createLog('error'))
  let rings = 0
  const ring = () => rings++
  try {
    proxy.turnAway(true)
    for (let time = 0; time < 3; time++)
      expect(await database.listen('datum', ring).catch(() => 'in vain')).toBe('in vain')
    proxy.turnAway(false)
    await database.listen('datum', ring)
    const before = rings
    await world.admin`select pg_notify('datum', '')`
    while (rings === before) await Bun.sleep(10)
    // Whatever else were to hear it has, too.
    await Bun.sleep(500)
    expect(rings - before).toBe(1)
  } finally {
    await database.close()
  }
})

onServer(
  'I8: what the role may not read is forbidden, the log says what to grant, and then it goes on',
  async () => {
    await using world = await createWorld({
      before: `create schema places; grant usage on schema places to ${APP_ROLE}`,
      tables: [features({ name: 'places.features' })],
    })
    const said: string[] = []
    const log: Log = { ...createLog('silent'), error: (words: unknown) => said.push(String(words)) } as never
    const server = await world.addServer({ log })
    await world.put({ org: 'a' })
    for (const [right, grant] of [
      ['select on places.features', 'GRANT SELECT ON places.features TO'],
      ['usage on schema places', 'GRANT USAGE ON SCHEMA "places" TO'],
    ] as const) {
      const { client, view } = await world.watch(alice, { server })
      await world.admin.unsafe(`revoke ${right} from ${APP_ROLE}`)
      await world.put({ org: 'a' })
      await client.until(() => view.ended !== null, 'it ended')
      expect(view.ended?.code).toBe('forbidden')
      while (!said.some((words) => words.includes(grant))) await Bun.sleep(50)
      await world.admin.unsafe(`grant ${right} to ${APP_ROLE}`)
      const again = await client.subscribe({ bbox: ZURICH })
      await world.untilTrue(client, again, alice)
    }
    expect(said).toHaveLength(2)
  },
)
