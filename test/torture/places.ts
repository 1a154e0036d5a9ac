/** Random rows: ids out of a small pool, so that operations meet, and places on and about the edges of the boxes. */
import type { Edit, Id, Json } from '../../src/wire/messages.ts'
import type { Random } from '../support/random.ts'
import { ROW_ORGS, type TableName } from './model.ts'

const FEATURES = 400
const NOTES = 60

export const featureId = (n: number): Id => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`

export function randomId(random: Random, table: TableName): Id {
  return table === 'features' ? featureId(random.below(FEATURES)) : String(1 + random.below(NOTES))
}

export function randomPlace(random: Random): [number, number] {
  // Mostly on a coarse grid, so that rows lie on the edges of boxes.
  const coordinate = () => (random.chance(0.5) ? random.below(25) - 12 : random.next() * 24 - 12)
  return random.chance(0.1)
    ? [random.pick([-180, 180, 179, -179]), coordinate()]
    : [coordinate(), coordinate()]
}

export function placeSql(random: Random): string {
  if (random.chance(0.05)) return 'null'
  if (random.chance(0.05)) return `'SRID=4326;POINT EMPTY'::geometry`
  const point = () => {
    const [x, y] = randomPlace(random)
    return `st_makepoint(${x}, ${y})`
  }
  const shape = random.chance(0.15) ? `st_makeline(${point()}, ${point()})` : point()
  return `st_setsrid(${shape}, 4326)`
}

/** An edit that a client may send; `token` names it in the ledger. */
export function randomEdit(random: Random, table: TableName, org: string, token: string): Edit {
  const id = randomId(random, table)
  const columns: Record<string, Json> = { token }
  if (random.chance(0.5)) columns.size = random.below(1000)
  if (random.chance(0.15)) columns.org_id = random.pick(ROW_ORGS)
  if (random.chance(0.1)) columns.hidden = random.chance(0.5)
  if (table === 'features' && random.chance(0.4)) {
    columns.geom = random.chance(0.1) ? null : { type: 'Point', coordinates: randomPlace(random) }
  }
  if (random.chance(0.1)) return { op: 'delete', id }
  if (random.chance(0.4)) {
    const key = table === 'notes' ? Number(id) : id
    return { op: 'insert', columns: { org_id: org, ...columns, id: key } }
  }
  return { op: 'update', id, columns }
}
