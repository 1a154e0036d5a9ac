/**
 * What several server processes on one database cost, and what a replica to read from takes off the primary: the figures
 * that docs/SCALING.md plans with. All processes share this machine, so CPU counts here, and time only beside the floor.
 */
import { join } from 'node:path'
import { type Replica, startReplica } from '../../test/support/replica.ts'
import { BOX, createDataset, type Dataset, tenantId } from '../dataset.ts'
import { figure, type Pair, plainFigure } from '../figure.ts'
import { type Helper, startHelper } from '../helper-process.ts'
import type { Traffic } from '../load/sockets.ts'
import type { Burst } from '../load/writer.ts'
import { cpuMs } from '../process-cost.ts'
import type { Figure, Row } from '../row.ts'
import { type ServerProcess, startServer } from '../server-process.ts'
import type { World } from '../world.ts'

const TENANTS = 10
const UPDATES = 2_000
const SOCKETS = 600
/** A pace at which each change is a batch of its own. */
const EVENLY_PER_SECOND = 300
/** Three seconds of it: more would only take longer. */
const EVENLY_UPDATES = 900
/** What is done for a burst after the last frame: the doorbell, the next look at the log. */
const AFTERWARDS_MS = 1_000

interface Setting {
  readonly of: string
  readonly processes: number
  readonly sockets: number
  readonly replica: boolean
  /** Changes at an even pace instead of a burst. */
  readonly perSecond?: number
}

/** CPU in microseconds per update, but for `totalMs`. */
interface Cost {
  readonly totalMs: number
  readonly servers: number
  readonly primary: number
  readonly replica: number
}

export const processes: Row = {
  name: 'processes',
  question: 'What does a burst cost with 1, 2 and 3 server processes, and with a replica to read from?',
  floor: 'The same burst with one process, or without the replica.',
  mustBe: 'nothing: these are to plan with (docs/SCALING.md)',
  async run(world) {
    const cluster = await world.cluster()
    await using dataset = await createDataset(cluster, { rows: UPDATES, tenants: TENANTS })
    await using replica = await startReplica(cluster)
    await replica.caughtUp()
    const sockets = world.size(SOCKETS, SOCKETS / 10)
    const run = (setting: Setting) => measure(world, dataset, replica, setting)
    const plain = { processes: 1, sockets, replica: false }
    const none = await run({ ...plain, of: 'no socket', sockets: 0 })
    const few = await run({ ...plain, of: 'a socket for each class', sockets: TENANTS })
    const one = await run({ ...plain, of: '1 process' })
    const slow = { ...plain, perSecond: EVENLY_PER_SECOND }
    const evenly = `1 process, ${EVENLY_PER_SECOND} a second`
    const evenNone = await run({ ...slow, of: `${evenly}, no socket`, sockets: 0 })
    const evenFew = await run({ ...slow, of: `${evenly}, a socket for each class`, sockets: TENANTS })
    const even = await run({ ...slow, of: evenly })
    const two = await run({ ...plain, of: '2 processes', processes: 2 })
    const three = await run({ ...plain, of: '3 processes', processes: 3 })
    const apart = await run({ ...plain, of: '2 processes, a replica', processes: 2, replica: true })
    return [
      ...partsOf('1 process', none, few, one, sockets),
      ...partsOf(evenly, evenNone, evenFew, even, sockets),
      ...[two, three].flatMap((costs, index) => comparison(`${index + 2} processes`, costs, one)),
      ...comparison('2 processes and a replica, to 2 without', apart, two),
      plainFigure(
        '2 processes and a replica: CPU of its sessions, per change',
        'µs',
        apart.map((cost) => cost.replica),
        null,
      ),
    ]
  },
}

/** What there is to plan with: the cost of a change, of each class that may see it, of each socket that gets it. */
function partsOf(
  what: string,
  none: readonly Cost[],
  few: readonly Cost[],
  one: readonly Cost[],
  sockets: number,
): Figure[] {
  const perSocket = (sockets - TENANTS) / TENANTS
  const parts = (of: (cost: Cost) => number, where: string) => {
    const [a, b, c] = [none, few, one].map((costs) => costs.map(of)) as [number[], number[], number[]]
    return [
      plainFigure(`${what}: ${where} CPU per change`, 'µs', a, null),
      plainFigure(
        `${what}: ${where} CPU per change and class`,
        'µs',
        b.map((cost, round) => cost - a[round]!),
        null,
      ),
      plainFigure(
        `${what}: ${where} CPU per change and further socket`,
        'µs',
        c.map((cost, round) => (cost - b[round]!) / perSocket),
        null,
      ),
    ]
  }
  return [
    ...parts(({ servers }) => servers, "the server's"),
    ...parts(({ primary }) => primary, "its Postgres sessions'"),
  ]
}

function comparison(of: string, costs: readonly Cost[], others: readonly Cost[]): Figure[] {
  const pairs = (value: (cost: Cost) => number): Pair[] =>
    costs.map((cost, round) => [value(cost), value(others[round]!)])
  return [
    figure({
      of: `${of}: time until all have all`,
      unit: 'ms',
      rounds: pairs(({ totalMs }) => totalMs),
      mustBe: null,
    }),
    figure({
      of: `${of}: CPU of all servers, per change`,
      unit: 'µs',
      rounds: pairs(({ servers }) => servers),
      mustBe: null,
    }),
    figure({
      of: `${of}: CPU of their sessions on the primary, per change`,
      unit: 'µs',
      rounds: pairs(({ primary }) => primary),
      mustBe: null,
    }),
  ]
}

async function measure(
  world: World,
  dataset: Dataset,
  replica: Replica,
  { of, processes: processCount, sockets, replica: isApart, perSecond }: Setting,
): Promise<Cost[]> {
  const database = new URL(dataset.adminUrl).pathname.slice(1)
  await using writer = startHelper(join(import.meta.dir, '../load/writer.ts'))
  await writer.call('connect', { url: dataset.adminUrl })
  await using stack = new AsyncDisposableStack()
  const servers: ServerProcess[] = []
  for (let n = 0; n < processCount; n++) {
    const environment: Record<string, string> = isApart
      ? { DATABASE_READ_URL: replica.at(dataset.appUrl) }
      : {}
    servers.push(stack.use(await startServer({ databaseUrl: dataset.appUrl, environment })))
  }
  await using clients = startHelper(join(import.meta.dir, '../load/sockets.ts'))
  await open(clients, servers, sockets)
  const standby = replica.admin(database)
  stack.defer(() => standby.end())
  let from = 0
  const burst = async (): Promise<number> => {
    await clients.call('collect', { from, count: UPDATES, groups: TENANTS })
    const rows = Array.from({ length: UPDATES }, (_, row) => row)
    const { began, ended } = await writer.call<Burst>('burst', { from, rows })
    from += UPDATES
    const { at } = await clients.call<Traffic>('collected')
    return (sockets === 0 ? ended : at) - began
  }
  const cpu = async () => ({
    servers: await sum(servers.map(({ pid }) => cpuMs(pid))),
    primary: await sessionsCpuMs(dataset.admin),
    replica: await sessionsCpuMs(standby),
  })
  const evenly = async (): Promise<number> => {
    const began = performance.now()
    const statement = 'update features set at = extract(epoch from clock_timestamp()) where n = $1'
    await writer.call('trickle', { perSecond, count: EVENLY_UPDATES, rows: UPDATES, statement })
    return performance.now() - began
  }
  const [write, count] = perSecond === undefined ? [burst, UPDATES] : [evenly, EVENLY_UPDATES]
  await burst()
  const costs = await world.inRounds(async () => {
    await Bun.sleep(AFTERWARDS_MS)
    const before = await cpu()
    const totalMs = await write()
    await Bun.sleep(AFTERWARDS_MS)
    const after = await cpu()
    const perUpdate = (part: keyof typeof after) => ((after[part] - before[part]) * 1_000) / count
    return {
      totalMs,
      servers: perUpdate('servers'),
      primary: perUpdate('primary'),
      replica: perUpdate('replica'),
    }
  })
  if (isApart) {
    for (const server of servers) {
      if (!((await server.metric('datum_replica_reads_total')) > 0))
        throw new Error('nothing was read on the replica')
    }
  }
  world.say(
    `${of}: ${costs.map((cost) => `${cost.totalMs.toFixed(0)} ms, µs ${cost.servers.toFixed(0)} + ${cost.primary.toFixed(0)} + ${cost.replica.toFixed(0)}`).join('; ')}`,
  )
  return costs
}

/** The sockets take turns with the servers, so that each server has some of every tenant, as behind a load balancer. */
async function open(clients: Helper, servers: readonly ServerProcess[], sockets: number): Promise<void> {
  const each = sockets / servers.length
  for (const [n, { socketUrl }] of servers.entries()) {
    const [first, end] = [Math.round(n * each), Math.round((n + 1) * each)]
    const users = Array.from({ length: end - first }, (_, index) => ({
      sub: `user-${first + index}`,
      org_id: tenantId((first + index) % TENANTS),
    }))
    await clients.call('open', { url: socketUrl, bbox: BOX, users, atATime: 50 })
  }
}

/** Of the servers' sessions there. */
async function sessionsCpuMs(sql: Dataset['admin']): Promise<number> {
  const sessions = await sql<{ pid: number }[]>`
    select pid from pg_stat_activity where usename = 'datum_app' and datname = current_database()`
  return sum(sessions.map(({ pid }) => cpuMs(pid)))
}

async function sum(values: readonly Promise<number>[]): Promise<number> {
  return (await Promise.all(values)).reduce((total, value) => total + value, 0)
}
