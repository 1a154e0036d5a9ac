/** Latency under light load: from a commit in SQL to the callback in a client. */
import { join } from 'node:path'
import { BOX, createDataset, type Dataset, tenantId } from '../dataset.ts'
import { plainFigure } from '../figure.ts'
import { type Helper, startHelper } from '../helper-process.ts'
import type { Figure, Row } from '../row.ts'
import { startServer } from '../server-process.ts'
import { median, percentile } from '../statistics.ts'

const TENANTS = 10
const SOCKETS = 100
const ROWS = 2_000
const PER_SECOND = 20
/** Changes in a round; each comes to the ten sockets of its tenant. */
const CHANGES = 160
/** The row carries the time at which the statement ran, so both sides pay for what comes after that, and the commit. */
const STATEMENT = 'update features set at = extract(epoch from clock_timestamp()) * 1000 where n = $1'

interface Side {
  readonly writer: Helper
  readonly clients: Helper
}

export const latency: Row = {
  name: 'latency',
  question: 'How long from a commit in SQL to the callback in a client, at 20 changes a second?',
  floor:
    'A bare listener to a trigger that notifies with the row in the payload, which publishes it to the sockets of the tenant.',
  mustBe: 'p50 ≤ 2×, p99 ≤ 3×',
  async run(world) {
    const cluster = await world.cluster()
    const sockets = world.size(SOCKETS, 20)
    await using dataset = await createDataset(cluster, { rows: ROWS, tenants: TENANTS })
    await using floorDataset = await createDataset(cluster, { rows: ROWS, tenants: TENANTS, watched: false })
    await notifyOfEveryRow(floorDataset)
    await using server = await startServer({ databaseUrl: dataset.appUrl })
    await using listener = startHelper(join(import.meta.dir, '../floors/notify-listener.ts'))
    const listenerUrl = await listener.call<string>('listen', { databaseUrl: floorDataset.appUrl })
    await using clients = startHelper(join(import.meta.dir, '../load/sockets.ts'))
    await using floorClients = startHelper(join(import.meta.dir, '../load/sockets.ts'))
    await using writer = startHelper(join(import.meta.dir, '../load/writer.ts'))
    await using floorWriter = startHelper(join(import.meta.dir, '../load/writer.ts'))
    await writer.call('connect', { url: dataset.adminUrl })
    await floorWriter.call('connect', { url: floorDataset.adminUrl })
    const users = Array.from({ length: sockets }, (_, n) => ({
      sub: `user-${n}`,
      org_id: tenantId(n % TENANTS),
    }))
    await clients.call('open', { url: server.socketUrl, bbox: BOX, users, atATime: 50 })
    await floorClients.call('open', { url: listenerUrl, bbox: BOX, users, atATime: 50 })
    const [datum, floor]: [Side, Side] = [
      { writer, clients },
      { writer: floorWriter, clients: floorClients },
    ]
    const expected = (CHANGES * sockets) / TENANTS
    await samplesOf(datum, 20)
    await samplesOf(floor, 20)
    const rounds = await world.inRounds(async () => {
      const [floorSamples, samples] = [await samplesOf(floor, CHANGES), await samplesOf(datum, CHANGES)]
      for (const [name, { length }] of Object.entries({ samples, floorSamples }))
        if (length < expected) throw new Error(`of ${expected} ${name} only ${length} came`)
      return {
        p50: [percentile(samples, 0.5), percentile(floorSamples, 0.5)] as const,
        p99: [percentile(samples, 0.99), percentile(floorSamples, 0.99)] as const,
        emptyStatement: await emptyStatementMs(floorDataset),
      }
    })
    const figures: Figure[] = (['p50', 'p99'] as const).map((name) => {
      const measured = median(rounds.map((round) => round[name][0]))
      const floorMs = median(rounds.map((round) => round[name][1]))
      return {
        of: name,
        unit: 'ms',
        measured,
        floor: floorMs,
        ratio: measured / floorMs,
        ratioUnit: '×',
        mustBe: { atMost: name === 'p50' ? 2 : 3 },
        rounds: rounds.map((round) => round[name][0] / round[name][1]),
      }
    })
    // Whoever looks into a log and then asks for rows under row security waits for two statements more than the floor.
    const emptyStatements = rounds.map(({ emptyStatement }) => emptyStatement)
    return [...figures, plainFigure('`SELECT 1` at this pace, p50', 'ms', emptyStatements, null)]
  },
}

/** What a statement that does nothing takes where, as here, processor and caches have been idle before it. */
async function emptyStatementMs({ admin }: Dataset): Promise<number> {
  const samples: number[] = []
  for (let n = 0; n < CHANGES; n++) {
    await Bun.sleep(1_000 / PER_SECOND)
    const began = performance.now()
    await admin`select 1`
    samples.push(performance.now() - began)
  }
  return percentile(samples, 0.5)
}

async function samplesOf({ writer, clients }: Side, count: number): Promise<readonly number[]> {
  await clients.call('sample')
  await writer.call('trickle', { perSecond: PER_SECOND, count, rows: ROWS, statement: STATEMENT })
  // What is still on its way is slow, but not that slow.
  await Bun.sleep(500)
  return clients.call<readonly number[]>('samples')
}

async function notifyOfEveryRow({ admin }: Dataset): Promise<void> {
  await admin.unsafe(`
    create function notify_floor() returns trigger language plpgsql as $$
    begin
      perform pg_notify('floor', new.org_id || row_to_json(new)::text);
      return null;
    end $$;
    create trigger floor after update on features for each row execute function notify_floor();`)
}
