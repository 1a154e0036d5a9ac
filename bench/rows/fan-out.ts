/** Fan-out where the sockets of a tenant share a class: what the users of one organisation see of a burst of changes. */
import { join } from 'node:path'
import { BOX, createDataset, type Dataset, tenantId } from '../dataset.ts'
import { figure, plainFigure } from '../figure.ts'
import { type Helper, startHelper } from '../helper-process.ts'
import type { Traffic } from '../load/sockets.ts'
import type { Burst } from '../load/writer.ts'
import { cpuMs } from '../process-cost.ts'
import type { Figure, Row } from '../row.ts'
import { type ServerProcess, startServer } from '../server-process.ts'
import { median } from '../statistics.ts'
import type { World } from '../world.ts'

const TENANTS = 10
const UPDATES = 2_000
/** How much longer than the writer alone it may take until everybody has everything, by the number of sockets. */
const LIMITS = [
  { sockets: 100, atMost: 1.3 },
  { sockets: 500, atMost: 1.5 },
  { sockets: 1_000, atMost: 2 },
]
const CPU_RATIO_MAX = 3
/** Bursts before the first that counts: a server that has run for a while has its caches full and its code compiled. */
const WARM_UPS = 5

interface Round {
  readonly writerAloneMs: number
  readonly totalMs: number
  readonly cpuPerRowUs: number
  readonly floorCpuPerRowUs: number
  readonly statementsPerBatch: number
}

export const fanOut: Row = {
  name: 'fan-out',
  question:
    'How long until every socket has all of 2,000 updates that it may see, its class shared with its tenant?',
  floor:
    'Time: the writer alone (one session, prepared and pipelined updates, triggers installed, no server). CPU: a bare Bun loop that sends as many bytes in as many frames to as many sockets.',
  mustBe: '≤ 1.3× (100 sockets), 1.5× (500), 2× (1,000) of the writer alone; CPU ≤ 3× of the bare loop',
  async run(world) {
    const cluster = await world.cluster()
    await using dataset = await createDataset(cluster, { rows: UPDATES, tenants: TENANTS })
    await using idle = await createDataset(cluster, { rows: UPDATES, tenants: TENANTS })
    const figures: Figure[] = []
    for (const { sockets: full, atMost } of LIMITS) {
      const sockets = world.size(full, full / 10)
      const rounds = await measure(world, dataset, idle, sockets)
      figures.push(...figuresOf(sockets, atMost, rounds))
      world.say(
        `${sockets} sockets: ${rounds.map(({ totalMs, writerAloneMs }) => `${totalMs.toFixed(0)}/${writerAloneMs.toFixed(0)} ms`).join(', ')}`,
      )
    }
    return figures
  },
}

/** `idle` is the same database without a server: there the writer is alone, in turns with the other, lest a busy machine
 * be held against one of them. */
async function measure(world: World, dataset: Dataset, idle: Dataset, sockets: number): Promise<Round[]> {
  await using writer = await startWriter(dataset)
  await using loneWriter = await startWriter(idle)
  await using server = await startServer({ databaseUrl: dataset.appUrl })
  await using clients = startHelper(join(import.meta.dir, '../load/sockets.ts'))
  await open(clients, server.socketUrl, sockets)
  const runs = new Runs()
  for (let n = 0; n < WARM_UPS; n++) {
    await burst(loneWriter, runs)
    await delivered(writer, clients, runs)
  }
  const rounds = await world.inRounds(async () => {
    const { began, ended } = await burst(loneWriter, runs)
    return {
      writerAloneMs: ended - began,
      ...(await withServer(dataset, server, writer, clients, runs, sockets)),
    }
  })
  const floor = await floorCpu(world, sockets, rounds)
  return rounds.map((round) => ({ ...round, floorCpuPerRowUs: floor }))
}

async function startWriter(dataset: Dataset): Promise<Helper> {
  const writer = startHelper(join(import.meta.dir, '../load/writer.ts'))
  await writer.call('connect', { url: dataset.adminUrl })
  return writer
}

/** Numbers the updates of all bursts, and deals the rows out to them. */
class Runs {
  #from = 0

  /** Update `i` changes a row of tenant `i % TENANTS`, and every row is changed once, in no order that an index likes. */
  next(): { readonly from: number; readonly rows: readonly number[] } {
    const from = this.#from
    this.#from += UPDATES
    const perTenant = UPDATES / TENANTS
    const rows = Array.from(
      { length: UPDATES },
      (_, i) => ((Math.floor(i / TENANTS) * 37) % perTenant) * TENANTS + (i % TENANTS),
    )
    return { from, rows }
  }
}

function burst(writer: Helper, runs: Runs): Promise<Burst> {
  return writer.call<Burst>('burst', runs.next())
}

async function delivered(
  writer: Helper,
  clients: Helper,
  runs: Runs,
): Promise<{ readonly began: number; readonly traffic: Traffic }> {
  const run = runs.next()
  await clients.call('collect', { from: run.from, count: UPDATES, groups: TENANTS })
  const { began } = await writer.call<Burst>('burst', run)
  return { began, traffic: await clients.call<Traffic>('collected') }
}

async function withServer(
  dataset: Dataset,
  server: ServerProcess,
  writer: Helper,
  clients: Helper,
  runs: Runs,
  sockets: number,
): Promise<Omit<Round, 'writerAloneMs' | 'floorCpuPerRowUs'> & { readonly traffic: Traffic }> {
  // The feed goes to sleep again, as it would be before a burst of an application.
  await Bun.sleep(500)
  await dataset.admin`select pg_stat_statements_reset()`
  const cpuBefore = await cpuMs(server.pid)
  const { began, traffic } = await delivered(writer, clients, runs)
  const cpu = (await cpuMs(server.pid)) - cpuBefore
  const [counted] = await dataset.admin<{ statements: number; batches: number }[]>`
    select sum(calls)::int as statements, sum(calls) filter (where query like '%datum.change c%')::int as batches
      from pg_stat_statements where userid = 'datum_app'::regrole`
  const delivery = rowsDelivered(sockets)
  return {
    totalMs: traffic.at - began,
    cpuPerRowUs: (cpu * 1_000) / delivery,
    statementsPerBatch: (counted?.statements ?? 0) / (counted?.batches ?? 1),
    traffic,
  }
}

/** As many frames of the same size, to as many sockets, several times over: one time is too short for the clock. */
async function floorCpu(
  world: World,
  sockets: number,
  rounds: readonly { readonly traffic: Traffic }[],
): Promise<number> {
  await using loop = startHelper(join(import.meta.dir, '../floors/bare-loop.ts'))
  await using clients = startHelper(join(import.meta.dir, '../load/sockets.ts'))
  await open(clients, await loop.call<string>('listen'), sockets)
  const frames = Math.max(1, Math.round(median(rounds.map(({ traffic }) => traffic.frames / sockets))))
  const bytes = Math.round(median(rounds.map(({ traffic }) => traffic.bytes)) / sockets / frames)
  const costs = await world.inRounds(async () => {
    await clients.call('collectBytes', { atLeast: frames * bytes * sockets })
    const before = await cpuMs(loop.pid)
    await loop.call('send', { frames, bytes, groups: TENANTS })
    await clients.call('collected')
    return ((await cpuMs(loop.pid)) - before) * 1_000
  })
  return median(costs) / rowsDelivered(sockets)
}

function rowsDelivered(sockets: number): number {
  return (sockets * UPDATES) / TENANTS
}

async function open(clients: Helper, url: string, sockets: number): Promise<void> {
  const users = Array.from({ length: sockets }, (_, n) => ({
    sub: `user-${n}`,
    org_id: tenantId(n % TENANTS),
  }))
  await clients.call('open', { url, bbox: BOX, users, atATime: 50 })
}

function figuresOf(sockets: number, atMost: number, rounds: readonly Round[]): Figure[] {
  const of = `${sockets.toLocaleString('en')} sockets`
  return [
    figure({
      of: `${of}: time until all have all`,
      unit: 'ms',
      rounds: rounds.map(({ totalMs, writerAloneMs }) => [totalMs, writerAloneMs]),
      mustBe: { atMost },
      growth: { line: 'until all have all', size: sockets },
    }),
    figure({
      of: `${of}: CPU per row delivered`,
      unit: 'µs',
      rounds: rounds.map(({ cpuPerRowUs, floorCpuPerRowUs }) => [cpuPerRowUs, floorCpuPerRowUs]),
      mustBe: { atMost: CPU_RATIO_MAX },
    }),
    plainFigure(
      `${of}: SQL statements per batch`,
      '',
      rounds.map(({ statementsPerBatch }) => statementsPerBatch),
      null,
    ),
  ]
}
