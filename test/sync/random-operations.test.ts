/**
 * Random operations by the application and by clients, all at once, on connections that die; then every client's view must equal `SELECT` under
 * its claims within its box, and no frame may ever have held a row that its claims of the moment do not allow.
 * Invariants 2, 3, 4, 5 and 6. Repeat a failing run with DATUM_TEST_SEED.
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import type { RunningServer } from '../../src/server.ts'
import type { Bbox, Edit } from '../../src/wire/messages.ts'
import { createWorld, point, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'
import { APP_ROLE } from '../support/postgres.ts'
import { Random, runSeed } from '../support/random.ts'
import { features } from '../support/table-spec.ts'
import { mintToken } from '../support/token.ts'
import type { Allowed, View, WireClient } from '../support/wire-client.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const ORGS = ['a', 'b', 'c']
const ROW_ORGS = [...ORGS, 'public', null]
const BOXES: readonly Bbox[] = [
  [-10, -10, 10, 10],
  [0, 0, 10, 10],
  [-10, -10, 0, 0],
  [5, -10, -5, 10],
  [-180, -90, 180, 90],
  [2, 2, 3, 3],
]
const CHECKPOINTS = 6
const OPERATIONS_PER_CHECKPOINT = 80
const CLIENTS = 5

/** Everybody sees their organisation's rows and the public ones; written rows must be one's own organisation's. */
const policies = `
  alter table features enable row level security;
  alter table features force row level security;
  create policy reading on features for select
    using (org_id = current_setting('datum.org_id', true) or org_id = 'public');
  create policy inserting on features for insert with check (org_id = current_setting('datum.org_id', true));
  create policy updating on features for update using (org_id = current_setting('datum.org_id', true));
  create policy deleting on features for delete using (org_id = current_setting('datum.org_id', true))`

const allowedTo =
  (org: string): Allowed =>
  (row) =>
    row.org_id === org || row.org_id === 'public'

class RandomClient {
  client!: WireClient
  view!: View
  bbox: Bbox
  org: string
  #seq = 0

  constructor(
    private readonly world: World,
    private readonly random: Random,
    private readonly subject: string,
    private readonly servers: readonly RunningServer[],
  ) {
    this.bbox = random.pick(BOXES)
    this.org = random.pick(ORGS)
  }

  get claims() {
    return { sub: this.subject, org_id: this.org }
  }

  async #connect(): Promise<void> {
    this.client = await this.world.connect(this.claims, {
      server: this.random.pick(this.servers),
      allowed: allowedTo(this.org),
    })
    this.#seq = 0
  }

  async start(): Promise<void> {
    await this.#connect()
    this.view = this.client.startSubscribe({ bbox: this.bbox })
  }

  /** Drops the socket in whatever state it is in, and comes back with what it has. */
  async reconnect(): Promise<void> {
    const { view, client } = this
    client.kill()
    await client.untilClosed()
    if (this.random.chance(0.3)) this.org = this.random.pick(ORGS)
    if (this.random.chance(0.3)) this.bbox = this.random.pick(BOXES)
    await this.#connect()
    if (view.cursor === null || view.ended !== null)
      this.view = this.client.startSubscribe({ bbox: this.bbox })
    else if (view.isExact && this.random.chance(0.7)) await this.#resumeShortly(view)
    else this.view = this.client.startResume(view, { bbox: this.bbox })
  }

  async #resumeShortly(view: View): Promise<void> {
    const short = this.client.startShortResume(view, { bbox: this.bbox })
    await this.client.until(() => short.resumed !== null || short.ended !== null, 'an answer')
    this.view =
      short.ended?.code === 'held_needed' ? this.client.startResume(view, { bbox: this.bbox }) : short
  }

  async swapClaims(): Promise<void> {
    this.org = this.random.pick(ORGS)
    await this.client.authenticate(await mintToken(this.claims), allowedTo(this.org))
  }

  moveBox(): void {
    this.bbox = this.random.pick(BOXES)
    this.client.send({ type: 'bbox', sub: 's', seq: ++this.#seq, bbox: this.bbox })
  }

  write(ids: readonly string[]): void {
    const { random } = this
    const edits = Array.from({ length: 1 + random.below(3) }, (): Edit => {
      const id = random.pick(ids)
      const columns = {
        ...(random.chance(0.5) && { size: random.below(1000) }),
        ...(random.chance(0.2) && { org_id: random.pick(ROW_ORGS) }),
        ...(random.chance(0.4) && { geom: random.chance(0.1) ? null : point(...randomPlace(random)) }),
      }
      if (random.chance(0.2)) return { op: 'delete', id }
      if (random.chance(0.4)) return { op: 'insert', columns: { id, org_id: this.org, ...columns } }
      return { op: 'update', id, columns: { name: 'by a client', ...columns } }
    })
    this.client.send({ type: 'write', batch: crypto.randomUUID(), edits })
  }

  async check(): Promise<void> {
    const { client, view } = this
    await client.ping()
    await client.until(() => view.complete >= this.#seq || view.ended !== null, 'the newest box is complete')
    expect(view.ended).toBeNull()
    await this.world.untilTrue(client, view, this.claims, this.bbox)
  }
}

function randomPlace(random: Random): [number, number] {
  // Mostly on a coarse grid, so that rows lie on the edges of boxes.
  const coordinate = () => (random.chance(0.5) ? random.below(25) - 12 : random.next() * 24 - 12)
  return random.chance(0.1)
    ? [random.pick([-180, 180, 179, -179]), coordinate()]
    : [coordinate(), coordinate()]
}

function pointSql(random: Random): string {
  if (random.chance(0.05)) return 'null'
  if (random.chance(0.05)) return `'SRID=4326;POINT EMPTY'::geometry`
  const [x, y] = randomPlace(random)
  return `st_setsrid(st_makepoint(${x}, ${y}), 4326)`
}

/** One statement, or a short transaction, of the application. */
function sqlOperation(random: Random, ids: readonly string[]): string {
  const id = () => `'${random.pick(ids)}'`
  const org = () => {
    const picked = random.pick(ROW_ORGS)
    return picked === null ? 'null' : `'${picked}'`
  }
  return random.weighted<() => string>([
    [
      6,
      () => `insert into features (id, org_id, size, geom) values (${id()}, ${org()}, ${random.below(99)}, ${pointSql(random)})
        on conflict (id) do update set org_id = excluded.org_id, geom = excluded.geom`,
    ],
    [4, () => `update features set size = size + 1, name = 'by SQL' where id = ${id()}`],
    [4, () => `update features set geom = ${pointSql(random)} where id = ${id()}`],
    [4, () => `update features set org_id = ${org()} where id = ${id()}`],
    [3, () => `delete from features where id = ${id()}`],
    [1, () => `update features set org_id = ${org()} where size % 7 = ${random.below(7)}`],
    [1, () => `update features set geom = ${pointSql(random)} where size % 5 = ${random.below(5)}`],
    [1, () => `delete from features where size % 9 = ${random.below(9)}`],
    [1, () => `update features set id = gen_random_uuid() where id = ${id()}`],
    [0.2, () => `truncate features`],
    [
      1,
      () => `do $$ begin delete from features where id = ${id()}; update features set name = 'undone', org_id = 'public';
        raise exception 'undo'; exception when others then null; end $$`,
    ],
  ])()
}

async function run(seed: number): Promise<void> {
  const random = new Random(seed)
  await using world = await createWorld({ tables: [features({ policies })] })
  const servers = [world.server]
  if (world.kind === 'postgres') servers.push(await world.addServer())
  const ids = Array.from({ length: 60 }, (_, n) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`)
  const clients = Array.from(
    { length: CLIENTS },
    (_, n) => new RandomClient(world, random, `user ${n}`, servers),
  )
  await world.admin.unsafe(
    Array.from({ length: 40 }, () => sqlOperation(random, ids))
      .join(';\n')
      .replaceAll('truncate features', 'select 1'),
  )
  for (const client of clients) await client.start()
  for (let checkpoint = 0; checkpoint < CHECKPOINTS; checkpoint++) {
    // Statements go out without waiting for one another: the application does not wait for clients either.
    const underWay: Promise<unknown>[] = []
    for (let n = 0; n < OPERATIONS_PER_CHECKPOINT; n++) {
      const client = random.pick(clients)
      const operation = random.weighted<'sql' | 'write' | 'box' | 'claims' | 'reconnect' | 'terminate'>([
        [world.kind === 'postgres' ? 0.2 : 0, 'terminate'],
        [10, 'sql'],
        [4, 'write'],
        [2, 'box'],
        [1, 'claims'],
        [1, 'reconnect'],
      ])
      if (operation === 'sql')
        underWay.push(world.admin.unsafe(sqlOperation(random, ids)).catch(ignoreConflict))
      else if (operation === 'write') client.write(ids)
      else if (operation === 'box') client.moveBox()
      else if (operation === 'terminate') underWay.push(terminateServers(world))
      else if (operation === 'claims') await client.swapClaims()
      else await client.reconnect()
      if (random.chance(0.2)) await Promise.all(underWay)
    }
    await Promise.all(underWay)
    // A write that is still on its way would change the truth while it is looked at.
    for (const client of clients) await untilAnswered(client.client)
    for (const client of clients) await client.check()
  }
}

/** Ends every connection that the servers have to Postgres, whatever they are doing. */
async function terminateServers({ admin }: World): Promise<void> {
  await admin`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and usename = ${APP_ROLE}`
}

/** Concurrent statements may collide on a key or wait for each other in a circle, as in any application. */
function ignoreConflict(error: { code?: string }): void {
  if (error.code !== '23505' && error.code !== '40P01') throw error
}

async function untilAnswered(client: WireClient): Promise<void> {
  // Pings are answered ahead of writes, so a batch that changes nothing marks the end of this socket's queue instead.
  await client.write([{ op: 'delete', id: crypto.randomUUID() }])
}

for (const round of [1, 2, 3])
  test(`I4: random operations end in the truth, round ${round}`, async () => {
    const seed = runSeed() + round - 1
    try {
      await run(seed)
    } catch (error) {
      throw new Error(`seed ${seed} (set DATUM_TEST_SEED=${seed} to repeat): ${(error as Error).message}`, {
        cause: error,
      })
    }
  }, 180_000)
