/** The first view: from a client's `connect` to the complete view, and what that takes of the server's memory. */
import { join } from 'node:path'
import { readTable } from '../../src/db/catalog.ts'
import { viewRowsSql } from '../../src/sync/read-sql.ts'
import { quietSql } from '../../test/support/postgres.ts'
import { BOX, createDataset, type Dataset, tenantId } from '../dataset.ts'
import { figure } from '../figure.ts'
import { startHelper } from '../helper-process.ts'
import type { Connected } from '../load/datum-client.ts'
import { forgetPeak, memoryOf } from '../process-cost.ts'
import type { Figure, Row } from '../row.ts'
import { startServer } from '../server-process.ts'
import type { World } from '../world.ts'

export const SNAPSHOT_SIZES = [1_000, 10_000, 50_000]
/** As many rows again belong to somebody else and lie in the same box. */
const TENANTS = 2
const MIB = 2 ** 20
const COLLECTOR = join(import.meta.dir, '../load/garbage-collector.ts')
/** What the server may take more for 50,000 rows than for 1,000: half of the rows' own text, which it must never hold. */
const GROWTH_MIB_MAX = 8

interface Round {
  readonly ms: number
  readonly floorMs: number
  readonly growthMib: number
}

export const snapshot: Row = {
  name: 'snapshot',
  question:
    'How long does the first view take, from `connect` to complete, and how much memory of the server?',
  floor: 'COPY of the same JSON under the same policy by psql, its start included, and JSON.parse of it.',
  mustBe: '≤ 1.5×; memory flat in the number of rows',
  async run(world) {
    const figures: Figure[] = []
    const growth: number[][] = []
    const inUse: number[][] = []
    for (const size of SNAPSHOT_SIZES) {
      const visible = world.size(size, size / 10)
      await using dataset = await createDataset(await world.cluster(), {
        rows: visible * TENANTS,
        tenants: TENANTS,
      })
      const rounds = await measure(world, dataset, visible)
      growth.push(rounds.map(({ growthMib }) => growthMib))
      inUse.push(await measureInUse(world, dataset))
      figures.push(
        figure({
          of: `${visible.toLocaleString('en')} rows`,
          unit: 'ms',
          rounds: rounds.map(({ ms, floorMs }) => [ms, floorMs]),
          mustBe: { atMost: 1.5 },
          growth: { line: 'connect to complete', size: visible },
        }),
      )
    }
    const ofMostAndFewest = (of: string, grown: readonly (readonly number[])[]) => {
      const [least, , most] = grown
      return figure({
        of,
        unit: 'MiB',
        rounds: most!.map((one, n) => [one, least![n]!]),
        as: 'difference',
        mustBe: { atMost: GROWTH_MIB_MAX },
      })
    }
    figures.push(
      ofMostAndFewest('server memory, most rows against fewest', growth),
      ofMostAndFewest('the same without garbage', inUse),
    )
    return figures
  },
}

async function measure(world: World, dataset: Dataset, visible: number): Promise<Round[]> {
  const { binaries } = await world.cluster()
  await using server = await startServer({ databaseUrl: dataset.appUrl })
  await using client = startHelper(join(import.meta.dir, '../load/datum-client.ts'))
  await using floor = startHelper(join(import.meta.dir, '../floors/copy.ts'))
  const query = await viewQuery(dataset)
  const orgId = tenantId(1)
  const connect = () =>
    client.call<Connected>('connect', {
      url: server.socketUrl,
      bbox: BOX,
      claims: { sub: 'a', org_id: orgId },
    })
  const copy = () =>
    floor.call<Connected>('copy', { psql: join(binaries, 'psql'), url: dataset.appUrl, orgId, query })
  for (let warm = 0; warm < 3; warm++)
    for (const { rows } of [await connect(), await copy()])
      if (rows !== visible) throw new Error(`${rows} rows came, not ${visible}`)
  return await world.inRounds(async () => {
    const { ms: floorMs } = await copy()
    const { growthMib, result } = await watchingMemory(server.pid, connect)
    return { ms: result.ms, floorMs, growthMib }
  })
}

/** What the server's memory grows by while garbage is collected all the time, which is far too slow to be of use. */
async function measureInUse(world: World, { appUrl }: Dataset): Promise<number[]> {
  const program = [process.execPath, '--preload', COLLECTOR, join(import.meta.dir, '../../src/cli.ts')]
  await using server = await startServer({ databaseUrl: appUrl, program })
  await using client = startHelper(join(import.meta.dir, '../load/datum-client.ts'))
  const claims = { sub: 'a', org_id: tenantId(1) }
  const connect = () => client.call<Connected>('connect', { url: server.socketUrl, bbox: BOX, claims })
  for (let warm = 0; warm < 3; warm++) await connect()
  return await world.inRounds(async () => (await watchingMemory(server.pid, connect)).growthMib)
}

/** `growthMib`: the most resident memory during `work`, over what there was before. */
async function watchingMemory<T>(
  pid: number,
  work: () => Promise<T>,
): Promise<{ growthMib: number; result: T }> {
  await forgetPeak(pid)
  const { resident } = await memoryOf(pid)
  const result = await work()
  const { peak } = await memoryOf(pid)
  return { growthMib: (peak - resident) / MIB, result }
}

/** The statement that the server itself reads with. */
async function viewQuery({ appUrl }: Dataset): Promise<string> {
  const sql = quietSql(appUrl)
  const config = { schema: 'public', name: 'features', idColumn: 'id', geometryColumn: 'geom' }
  const table = await readTable(sql, config)
  await sql.end()
  return viewRowsSql(table, [...BOX], 100_001)
}
