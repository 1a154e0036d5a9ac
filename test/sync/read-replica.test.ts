/**
 * Reads that go to a streaming replica: as much as the primary's, whatever the replica does meanwhile. Invariants 2, 4, 5
 * and 8. Repeat a failing run with DATUM_TEST_SEED. Real Postgres only.
 */
import { afterAll, expect, setDefaultTimeout, test } from 'bun:test'
import type { Database } from '../../src/db/database.ts'
import { openPostgres } from '../../src/db/postgres.ts'
import { replayedAt, walPosition, walText } from '../../src/db/replica-proof.ts'
import type { Log } from '../../src/observe/log.ts'
import type { RunningServer } from '../../src/server.ts'
import type { Bbox } from '../../src/wire/messages.ts'
import { backend, backendKind } from '../support/backend.ts'
import { createWorld, onlyOrg, TEST_TIMEOUT_MS, type World, type WorldOptions } from '../support/fixture.ts'
import { proxyTo } from '../support/proxy.ts'
import { Random, runSeed } from '../support/random.ts'
import { type Replica, startReplica } from '../support/replica.ts'
import { features } from '../support/table-spec.ts'
import { mintToken } from '../support/token.ts'
import type { View, WireClient } from '../support/wire-client.ts'

setDefaultTimeout(2 * TEST_TIMEOUT_MS)

const isReal = (await backendKind()) === 'postgres' && !process.env.DATUM_TEST_DATABASE_URL
// A replica needs a cluster whose files are at hand.
const realOnly = isReal ? test : test.skip

let shared: Promise<Replica> | null = null

async function newReplica(): Promise<Replica> {
  const running = await backend()
  if (running.kind !== 'postgres') throw new Error('the embedded Postgres has no replicas')
  return startReplica(running.cluster)
}

/** One that is left as it was found. */
function sharedReplica(): Promise<Replica> {
  shared ??= newReplica()
  return shared
}

afterAll(async () => {
  await (await shared)?.stop()
})

/** A world with a server that reads from the replica. Its log is kept. */
class ReplicaWorld implements AsyncDisposable {
  private constructor(
    readonly world: World,
    readonly replica: Replica,
    readonly database: Database,
    readonly server: RunningServer,
    readonly log: readonly string[],
  ) {}

  static async create(replica: Replica, options: WorldOptions = {}): Promise<ReplicaWorld> {
    const world = await createWorld(options)
    const said: string[] = []
    try {
      await replica.caughtUp()
      const database = openReading(world, replica.at(world.appUrl!), said)
      const server = await world.addServer({ database })
      return new ReplicaWorld(world, replica, database, server, said)
    } catch (error) {
      await world.close()
      throw error
    }
  }

  get counts() {
    return { ...this.database.reads.counts! }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.stop()
    await this.database.close()
    await this.world.close()
  }
}

function openReading(world: World, readUrl: string, said: string[]): Database {
  const say = (words: unknown) => void said.push(String(words))
  const log = { error: say, warn: say, info: say, debug: () => {}, success: say } as unknown as Log
  return openPostgres(world.appUrl!, log, { readUrl })
}

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const giveUpAt = Date.now() + TEST_TIMEOUT_MS
  while (!(await condition())) {
    if (Date.now() > giveUpAt) throw new Error(`gave up waiting until ${what}`)
    await Bun.sleep(20)
  }
}

const alice = { sub: 'alice', org_id: 'a' }
const bob = { sub: 'bob', org_id: 'b' }

realOnly('I2: rows are read on the replica, where row security applies as on the primary', async () => {
  // Whoever reads on the primary sees none.
  const policies = `
    alter table features enable row level security; alter table features force row level security;
    create policy p on features using (org_id = current_setting('datum.org_id', true) and pg_is_in_recovery())`
  await using made = await ReplicaWorld.create(await sharedReplica(), { tables: [features({ policies })] })
  const { world, server } = made
  const [first] = [await world.put({ org: 'a' }), await world.put({ org: 'b' })]
  const one = await world.watch(alice, { server, allowed: onlyOrg('a') })
  const two = await world.watch(bob, { server, allowed: onlyOrg('b') })
  expect([...one.view.rows.keys()]).toEqual([first])
  expect(two.view.rows.size).toBe(1)
  const live = await world.put({ org: 'a' })
  await one.client.until(() => one.view.rows.has(live), 'what is written later is read there, too')
  await world.admin`update features set org_id = 'b' where id = ${live}`
  await two.client.until(() => two.view.rows.has(live), 'it is given away')
  await one.client.until(() => !one.view.rows.has(live), 'it left')
  expect(made.counts.primary).toBe(0)
})

realOnly(
  'I4: while replay stands still, changes arrive by way of the primary, and none goes back',
  async () => {
    const replica = await sharedReplica()
    await using made = await ReplicaWorld.create(replica)
    const { world, server } = made
    const id = await world.put({ org: 'a', size: 0 })
    const { client, view } = await world.watch(alice, { server })
    let size = 0
    const grow = async () => {
      size++
      await world.admin`update features set size = ${size} where id = ${id}`
    }
    const grown = () => client.until(() => view.rows.get(id)?.size === size, `it has size ${size}`)
    for (let round = 0; round < 3; round++) {
      await replica.pauseReplay()
      try {
        const before = made.counts.primary
        for (let n = 0; n < 5; n++) {
          await grow()
          await grown()
        }
        expect(made.counts.primary).toBeGreaterThan(before)
        // Somebody who comes and who moves in the meantime.
        const late = await world.watch(alice, { server })
        expect(late.view.rows.get(id)?.size).toBe(size)
      } finally {
        await replica.resumeReplay()
      }
      const before = made.counts.replica
      await until(async () => {
        await grow()
        await grown()
        return made.counts.replica > before
      }, 'the replica is read from again')
    }
    const sizes = client.frames.flatMap((frame) =>
      frame.type === 'view' ? (frame.rows ?? []).map((row) => Number(row.size)) : [],
    )
    expect(sizes).toEqual(sizes.toSorted((a, b) => a - b))
    expect(made.log.join('\n')).toMatch(
      /not used at the moment: it has not replayed .*Reads go to the primary/,
    )
    expect(made.log.join('\n')).toContain('Reads go to the replica again')
  },
)

realOnly(
  'I4: what no change announces is seen by who opens a view, moves it or has other claims',
  async () => {
    const replica = await sharedReplica()
    const policies = `
    create table memberships (who text, org text); grant select on memberships to datum_app;
    alter table features enable row level security; alter table features force row level security;
    create policy p on features using (exists (select from memberships m
      where m.who = current_setting('datum.sub', true) and m.org = org_id))`
    await using made = await ReplicaWorld.create(replica, { tables: [features({ policies })] })
    const { world, server } = made
    await world.put({ org: 'a' })
    const { client, view } = await world.watch({ sub: 'alice' }, { server })
    let seq = 0
    let isPaused = false
    for (let round = 0; round < 12; round++) {
      if (round % 4 === 1) {
        await replica.pauseReplay()
        isPaused = true
      }
      try {
        await world.admin`insert into memberships values ('alice', 'a')`
        await client.setBbox('s', ++seq, [8, 47, 9, 48 + round / 100])
        expect(view.rows.size).toBe(1)
        await world.admin`delete from memberships`
        await client.setBbox('s', ++seq, [8, 47, 9, 48 - round / 100])
        expect(view.rows.size).toBe(0)
        await world.admin`insert into memberships values ('carol', 'a')`
        await client.authenticate(await mintToken({ sub: 'alice', round }))
        const { view: other } = await world.watch({ sub: 'carol' }, { server })
        expect(other.rows.size).toBe(1)
        await world.admin`delete from memberships`
      } finally {
        if (isPaused) await replica.resumeReplay()
        isPaused = false
      }
    }
    expect(made.counts.replica).toBeGreaterThan(0)
  },
)

realOnly('I8: what the replica cannot read, the primary reads; what neither can ends the view', async () => {
  const policies = `
    create unlogged table visible (org text); insert into visible values ('a'); grant select on visible to datum_app;
    alter table features enable row level security; alter table features force row level security;
    create policy p on features using (org_id in (select org from visible)
      and length(current_setting('datum.n', true)::int::text) > 0)`
  await using made = await ReplicaWorld.create(await sharedReplica(), { tables: [features({ policies })] })
  const { world, server } = made
  const id = await world.put({ org: 'a' })
  const { client, view } = await world.watch({ sub: 'alice', n: 1 }, { server })
  expect([...view.rows.keys()]).toEqual([id])
  const later = await world.put({ org: 'a' })
  await client.until(() => view.rows.has(later), 'it is live')
  expect(view.ended).toBeNull()
  const bad = await world.watch({ sub: 'bob', n: 'x' }, { server })
  expect(bad.view.ended?.code).toBe('policy_error')
})

realOnly('I5: a replica that is killed and comes back: nothing is missed', async () => {
  const replica = await sharedReplica()
  await using made = await ReplicaWorld.create(replica)
  const { world, server } = made
  const { client, view } = await world.watch(alice, { server })
  for (let round = 0; round < 2; round++) {
    const write = (async () => {
      for (let n = 0; n < 30; n++) {
        await world.put({ org: 'a', name: `during ${round} ${n}` })
        await Bun.sleep(10)
      }
    })()
    await replica.kill()
    await write
    await world.untilTrue(client, view, alice)
    const late = await world.watch(alice, { server })
    await world.untilTrue(late.client, late.view, alice)
    await replica.start()
    const before = made.counts.replica
    await until(async () => {
      const id = await world.put({ org: 'a' })
      await client.until(() => view.rows.has(id), 'it is live')
      return made.counts.replica > before
    }, 'the replica is read from again')
  }
  await world.untilTrue(client, view, alice)
  expect(view.ended).toBeNull()
})

realOnly('I2: nothing is read from a replica that was promoted', async () => {
  await using replica = await newReplica()
  await using made = await ReplicaWorld.create(replica)
  const { world, server } = made
  const { client, view } = await world.watch(alice, { server, allowed: (row) => row.name !== 'foreign' })
  const id = await world.put({ org: 'a' })
  await client.until(() => view.rows.has(id), 'it is live')
  expect(made.counts.replica).toBeGreaterThan(0)
  await replica.promote()
  const promoted = replica.admin(new URL(world.adminUrl!).pathname.slice(1))
  await promoted`insert into features (org_id, name, geom) values ('a', 'foreign', st_setsrid(st_makepoint(8.5, 47.5), 4326))`
  await promoted`update features set name = 'foreign'`
  const before = made.counts.replica
  await client.setBbox('s', 1, [8, 47, 9, 48.5])
  await world.admin`update features set name = 'own' where id = ${id}`
  await client.until(() => view.rows.get(id)?.name === 'own', 'changes of the primary arrive')
  const late = await world.watch(alice, { server, allowed: (row) => row.name !== 'foreign' })
  await world.untilTrue(late.client, late.view, alice)
  expect(made.counts.replica).toBe(before)
  expect(made.log.join('\n')).toContain('it is no standby')
  await promoted.end()
})

realOnly(
  'what is no streaming replica of the database, or has another role, is refused in words',
  async () => {
    const replica = await sharedReplica()
    await using world = await createWorld()
    await using other = await createWorld()
    await replica.caughtUp()
    const start = async (readUrl: string) => {
      const database = openReading(world, readUrl, [])
      try {
        await world.addServer({ database })
        return 'started'
      } catch (error) {
        return String(error)
      } finally {
        await database.close()
      }
    }
    expect(await start(world.appUrl!)).toMatch(/DATABASE_READ_URL cannot be used: it is no standby/)
    expect(await start(replica.at(world.adminUrl!))).toMatch(
      /connected to as postgres, and DATABASE_URL as datum_app/,
    )
    expect(await start(replica.at(other.appUrl!))).toMatch(/it does not follow the database at DATABASE_URL/)
  },
)

realOnly('I5: a replica that is away does not keep the server from starting', async () => {
  await using world = await createWorld()
  const said: string[] = []
  const url = new URL(world.appUrl!)
  url.port = '1'
  const database = openReading(world, url.href, said)
  try {
    const server = await world.addServer({ database })
    const { client, view } = await world.watch(alice, { server })
    const id = await world.put({ org: 'a' })
    await client.until(() => view.rows.has(id), 'it is live')
    expect(said.join('\n')).toMatch(/The read replica is not used at the moment: it does not answer/)
  } finally {
    await database.close()
  }
})

realOnly('I5: connections to the replica that go dead without a word hold nothing up for long', async () => {
  const replica = await sharedReplica()
  await using world = await createWorld()
  await replica.caughtUp()
  using proxy = await proxyTo(replica.at(world.appUrl!))
  const said: string[] = []
  const database = openReading(world, proxy.url, said)
  try {
    const server = await world.addServer({ database })
    const { client, view } = await world.watch(alice, { server })
    expect(database.reads.counts!.replica).toBeGreaterThan(0)
    proxy.cut(false)
    const id = await world.put({ org: 'a' })
    await client.setBbox('s', 1, [8, 47, 9, 48.5])
    await client.until(() => view.rows.has(id), 'it is live')
    expect(said.join('\n')).toContain('it does not answer (ETIMEDOUT)')
    const before = database.reads.counts!.replica
    await until(async () => {
      const next = await world.put({ org: 'a' })
      await client.until(() => view.rows.has(next), 'it is live')
      return database.reads.counts!.replica > before
    }, 'the replica is read from again, over new connections')
    await world.server.stop()
    await server.stop()
  } finally {
    await database.close()
  }
})

realOnly(
  'I5: a replica that has replayed everything is seen to have, wherever in a page the WAL ends',
  async () => {
    const replica = await sharedReplica()
    await using world = await createWorld({ start: false })
    const standby = replica.admin('postgres')
    try {
      // The primary writes something now and then, and a replica that gets there by that shows nothing.
      for (let shown = 0; shown < 3; ) {
        // Records of many lengths until one ends with its page: the insert position is then behind the next one's header.
        await world.admin.unsafe(`do $$ begin
          for n in 1 .. 100000 loop
            perform pg_logical_emit_message(false, 'x', repeat('x', (n * 13) % 200));
            exit when mod(pg_current_wal_insert_lsn() - '0/0', 8192) = 24;
          end loop; end $$`)
        const insertedTo = async () => {
          const [row] = await world.admin<{ lsn: string }[]>`select pg_current_wal_insert_lsn()::text as lsn`
          return walPosition(row!.lsn)
        }
        const at = await insertedTo()
        const target = replayedAt(at, 8192n)
        await until(
          async () => {
            const [row] = await standby<{ lsn: string }[]>`select pg_last_wal_replay_lsn()::text as lsn`
            return walPosition(row!.lsn) >= target
          },
          `${walText(target)} is replayed`,
        )
        if ((await insertedTo()) === at) shown++
      }
    } finally {
      await standby.end()
    }
  },
)

const BOXES: readonly Bbox[] = [
  [-10, -10, 10, 10],
  [0, 0, 10, 10],
  [-180, -90, 180, 90],
  [5, -10, -5, 10],
]
const ORGS = ['a', 'b']

interface Watcher {
  client: WireClient
  view: View
  org: string
  bbox: Bbox
  seq: number
}

for (const synchronousCommit of ['off', 'on'])
  realOnly(
    `I4: random operations end in the truth while replay pauses and goes on, synchronous_commit ${synchronousCommit}`,
    async () => {
      const seed = runSeed()
      const random = new Random(seed)
      const replica = await sharedReplica()
      await using made = await ReplicaWorld.create(replica)
      const { world, server } = made
      const ids = Array.from(
        { length: 40 },
        (_, n) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`,
      )
      const write = () => {
        const id = `'${random.pick(ids)}'`
        const place = `st_setsrid(st_makepoint(${random.below(25) - 12}, ${random.below(25) - 12}), 4326)`
        const org = random.pick(ORGS)
        const statement = random.weighted<string>([
          [
            5,
            `insert into features (id, org_id, size, geom) values (${id}, '${org}', 1, ${place})
             on conflict (id) do update set org_id = excluded.org_id, geom = excluded.geom`,
          ],
          [4, `update features set size = size + 1 where id = ${id}`],
          [3, `update features set geom = ${place} where id = ${id}`],
          [3, `update features set org_id = '${org}' where id = ${id}`],
          [2, `delete from features where id = ${id}`],
          [1, `update features set size = size + 1, org_id = '${org}' where size % 3 = ${random.below(3)}`],
        ])
        return world.admin
          .begin((tx) => tx.unsafe(`set local synchronous_commit = ${synchronousCommit}; ${statement}`))
          .catch((error: { code?: string }) => {
            if (error.code !== '40P01' && error.code !== '23505') throw error
          })
      }
      const claims = ({ org }: Pick<Watcher, 'org'>) => ({ sub: 'somebody', org_id: org })
      const watchers: Watcher[] = []
      for (let n = 0; n < 5; n++) {
        const [org, bbox] = [random.pick(ORGS), random.pick(BOXES)]
        const { client, view } = await world.watch(claims({ org }), { server, bbox, allowed: onlyOrg(org) })
        watchers.push({ client, view, org, bbox, seq: 0 })
      }
      let isPaused = false
      const turn = async (pause: boolean) => {
        if (pause === isPaused) return
        isPaused = pause
        await (pause ? replica.pauseReplay() : replica.resumeReplay())
      }
      try {
        for (let checkpoint = 0; checkpoint < 6; checkpoint++) {
          // Every other time from a replica that is read from; else as it comes.
          if (checkpoint % 2 === 0) {
            await turn(false)
            const before = made.counts.replica
            await until(async () => {
              await write()
              return made.counts.replica > before
            }, 'the replica is read from')
          }
          const underWay: Promise<unknown>[] = []
          for (let n = 0; n < 60; n++) {
            const one = random.pick(watchers)
            const operation = random.weighted<'write' | 'box' | 'claims' | 'again' | 'turn' | 'wait'>([
              [20, 'write'],
              [2, 'box'],
              [1, 'claims'],
              [1, 'again'],
              [1, 'turn'],
              [2, 'wait'],
            ])
            if (operation === 'write') underWay.push(write())
            else if (operation === 'turn') await turn(random.chance(0.5))
            else if (operation === 'wait') await Bun.sleep(random.below(60))
            else if (operation === 'box') {
              one.bbox = random.pick(BOXES)
              one.client.send({ type: 'bbox', sub: 's', seq: ++one.seq, bbox: one.bbox })
            } else if (operation === 'claims') {
              one.org = random.pick(ORGS)
              await one.client.authenticate(await mintToken(claims(one)), onlyOrg(one.org))
            } else {
              one.client.kill()
              await one.client.untilClosed()
              one.client = await world.connect(claims(one), { server, allowed: onlyOrg(one.org) })
              one.seq = 0
              one.view =
                one.view.cursor === null
                  ? one.client.startSubscribe({ bbox: one.bbox })
                  : one.client.startResume(one.view, { bbox: one.bbox })
            }
            if (random.chance(0.2)) await Promise.all(underWay)
          }
          await Promise.all(underWay)
          for (const { client, view, seq, org, bbox } of watchers) {
            await client.until(() => view.complete >= seq, `the newest box is complete, seed ${seed}`)
            await world.untilTrue(client, view, claims({ org }), bbox)
            expect(view.ended).toBeNull()
          }
        }
      } finally {
        await turn(false)
      }
      expect(made.counts.primary).toBeGreaterThan(0)
    },
  )
