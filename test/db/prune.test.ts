/** The log does not grow for ever: what servers drop, and what writers drop when no server comes. Invariants 5 and 11. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { install } from '../../src/db/install.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { APP_ROLE, quietSql } from '../support/postgres.ts'

/** The embedded Postgres is one session, and its server is in the same process: it is never away. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(2 * TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const setup = (world: World) => install(world.admin, { tables: world.config.tables, role: APP_ROLE })
const insert = (count: number) =>
  `insert into features (org_id, geom) select 'a', st_setsrid(st_makepoint(8.5, 47.5), 4326) from generate_series(1, ${count})`

async function logged(world: World): Promise<number> {
  const [row] = await world.admin`select count(*)::int as count from datum.change`
  return row!.count as number
}

/** Makes the log believe that all that is in it was written hours ago, and no server has been here since. */
async function hoursPass(world: World): Promise<void> {
  await world.admin`
    insert into datum.tick (at, oldest_xid) values (now(), pg_snapshot_xmax(pg_current_snapshot()))`
  await world.admin`update datum.tick set at = at - interval '2 hours'`
  await world.admin`update datum.meta set attended_at = attended_at - interval '2 hours'`
}

onServer(
  'I11: with no server for hours, the writes of the application keep the log short themselves',
  async () => {
    await using world = await createWorld({ start: false })
    await setup(world)
    await world.admin.unsafe(insert(30_000))
    let highest = 0
    for (let hour = 0; hour < 8; hour++) {
      await hoursPass(world)
      // In one statement, and in many small ones.
      await world.admin.unsafe(insert(10_000))
      for (let n = 0; n < 100; n++) await world.admin.unsafe(insert(100))
      highest = Math.max(highest, await logged(world))
    }
    expect(highest).toBeLessThan(60_000)
    // 30,000 and eight times 20,000 were written.
    expect(await logged(world)).toBeLessThan(45_000)
  },
)

onServer('I11: while a server sees to the log, writers leave it alone', async () => {
  await using world = await createWorld({ start: false })
  await setup(world)
  await world.admin.unsafe(insert(5_000))
  await hoursPass(world)
  await world.admin`update datum.meta set attended_at = now()`
  await world.admin.unsafe(insert(5_000))
  expect(await logged(world)).toBe(10_000)
})

for (const isolation of ['read committed', 'repeatable read', 'serializable'])
  onServer(
    `I11: ${isolation} transactions that drop from the log, at the same time, wait for nobody and do not fail`,
    async () => {
      await using world = await createWorld({ start: false })
      await setup(world)
      await world.admin.unsafe(insert(20_000))
      await hoursPass(world)
      const writers = Array.from({ length: 4 }, () => quietSql(world.adminUrl!))
      const inside = Promise.withResolvers<void>()
      let waiting = writers.length
      await Promise.all(
        writers.map((sql) =>
          sql.begin(`isolation level ${isolation}`, async (transaction) => {
            await transaction`set local statement_timeout = '10s'`
            await transaction.unsafe(insert(2_000))
            await transaction.unsafe(insert(2_000))
            // None commits before all have written: whoever dropped something still has its locks.
            if (--waiting === 0) inside.resolve()
            await inside.promise
          }),
        ),
      )
      for (const sql of writers) await sql.end()
      expect((await world.admin`select from features`).length).toBe(36_000)
      if (isolation !== 'serializable') expect(await logged(world)).toBeLessThan(36_000)
    },
  )

onServer(
  'I5: a client that comes back to a log that writers have shortened starts anew and misses nothing',
  async () => {
    await using world = await createWorld()
    const { client, view } = await world.watch(alice)
    const early = await world.put({ org: 'a' })
    await client.until(() => view.rows.has(early), 'live')
    client.kill()
    await world.admin`delete from features where id = ${early}`
    await world.admin.unsafe(insert(3_000))
    await hoursPass(world)
    await world.admin.unsafe(insert(1_500))
    expect(await logged(world)).toBeLessThan(3_500)
    // The server that it left remembers what the log has forgotten; another one does not.
    for (const [server, isResumed] of [
      [await world.addServer(), false],
      [world.server, true],
    ] as const) {
      const again = await world.connect(alice, { server })
      const resumed = await again.resume(view, { bbox: ZURICH })
      expect(resumed.resumed).toBe(isResumed)
      await world.untilTrue(again, resumed, alice)
    }
  },
)

onServer(
  'I11: a server that was away for a day drops what has piled up in small steps, while others write',
  async () => {
    await using world = await createWorld({ start: false })
    await setup(world)
    await world.admin.unsafe(insert(23_000))
    await world.admin`insert into datum.batch (subject, id, at) select 'x', gen_random_uuid(), now() - interval '2 days' from generate_series(1, 7000)`
    await hoursPass(world)
    await world.admin`update datum.meta set attended_at = now()`
    const kept = await world.put({ org: 'a' })
    const application = quietSql(world.adminUrl!)
    const counts: number[] = []
    await application.begin(async (transaction) => {
      await transaction.unsafe(insert(1))
      for (let more = true; more; ) {
        const [step] = await world.admin`select datum.prune('1 hour', '1 day', 5000, true) as more`
        more = step!.more as boolean
        counts.push(await logged(world))
      }
    })
    await application.end()
    expect(counts).toEqual([18_001, 13_001, 8_001, 3_001, 1])
    expect(await world.admin`select from datum.change where id = ${kept}`).toHaveLength(1)
    expect(await world.admin`select from datum.batch`).toHaveLength(0)
    // The server's role may do it, and nobody else.
    const app = quietSql(world.appUrl!)
    await app`select datum.prune('1 hour', '1 day', 5000, true)`
    await app.end()
  },
)
