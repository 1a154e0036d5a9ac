/** A box of a large table under row level security: what the two steps around the spatial index cost. */
import type { Sql } from 'postgres'
import { asPrincipal } from '../../src/db/as-principal.ts'
import { readTable, type Table } from '../../src/db/catalog.ts'
import { viewRowsSql } from '../../src/sync/read-sql.ts'
import { quietSql } from '../../test/support/postgres.ts'
import { createDataset, type Dataset, tenantId } from '../dataset.ts'
import { figure } from '../figure.ts'
import type { Row } from '../row.ts'
import { median } from '../statistics.ts'

const ROWS = 1_000_000
const TENANTS = 20
/** Rows lie on a grid of 1,000 a degree of longitude; a table ten times smaller is a tenth of the area, as dense. */
const POINT = 'st_makepoint(n / 1000 * 0.001, n % 1000 * 0.001)'
/** 45 × 45 points, of which each tenant has a twentieth. */
const BOX = [0.02, 0.3, 0.0649, 0.3449] as const
const READS = 30

export const box: Row = {
  name: 'box',
  question: 'How long does it take to read the 100 visible rows of a box, of a million rows in 20 tenants?',
  floor:
    'The same read with PostGIS’s operator marked LEAKPROOF, so that the planner may use the index under RLS by itself.',
  mustBe: '≤ 2×; and ± 20 % of the same box in a table ten times smaller',
  async run(world) {
    const cluster = await world.cluster()
    const rows = ROWS
    const reads = world.size(READS, READS / 10)
    await using large = await createDataset(cluster, { rows, tenants: TENANTS, point: POINT })
    await using small = await createDataset(cluster, { rows: rows / 10, tenants: TENANTS, point: POINT })
    await using read = await openReader(large)
    await using readSmall = await openReader(small)
    // Functions belong to a database, so this concerns the large table's alone; datum's own read does not use it.
    await large.admin.unsafe('alter function geometry_overlaps(geometry, geometry) leakproof')
    const floorTable = { ...read.table, candidatesBypass: false }
    const rounds = await world.inRounds(async () => {
      const times: Record<'datum' | 'leakproof' | 'small', number[]> = { datum: [], leakproof: [], small: [] }
      for (let n = 0; n < reads; n++) {
        times.leakproof.push(await read.ms(floorTable))
        times.datum.push(await read.ms(read.table))
        times.small.push(await readSmall.ms(readSmall.table))
      }
      return { datum: median(times.datum), leakproof: median(times.leakproof), small: median(times.small) }
    })
    return [
      figure({
        of: `${rows.toLocaleString('en')} rows, ${read.rows} visible`,
        unit: 'ms',
        rounds: rounds.map(({ datum, leakproof }) => [datum, leakproof]),
        mustBe: { atMost: 2 },
      }),
      figure({
        of: `against ${(rows / 10).toLocaleString('en')} rows`,
        unit: 'ms',
        rounds: rounds.map((round) => [round.datum, round.small]),
        mustBe: { atMost: 1.2 },
      }),
    ]
  },
}

interface Reader extends AsyncDisposable {
  readonly table: Table
  /** Rows that it got. */
  readonly rows: number
  /** One read as the server makes it, without the round trips of its transaction. */
  ms(table: Table): Promise<number>
}

async function openReader({ appUrl }: Dataset): Promise<Reader> {
  const sql: Sql = quietSql(appUrl)
  const table = await readTable(sql, {
    schema: 'public',
    name: 'features',
    idColumn: 'id',
    geometryColumn: 'geom',
  })
  if (!table.candidatesBypass) throw new Error('the two steps are not in use')
  let rows = 0
  const ms = (described: Table) =>
    asPrincipal(
      sql,
      { settings: { 'datum.org_id': tenantId(7) }, access: 'read only', timeoutMs: 60_000 },
      async (transaction) => {
        const began = performance.now()
        rows = (await transaction.unsafe(viewRowsSql(described, [...BOX], 100_000))).length
        return performance.now() - began
      },
    )
  await ms(table)
  return { table, rows, ms, [Symbol.asyncDispose]: () => sql.end() }
}
