/**
 * The statements that read a table for its subscriptions. All run as the server's role with a principal's claims set,
 * so that row level security decides; whether a row is in the box is decided by the envelope of what the client gets.
 */
import type { Table } from '../db/catalog.ts'
import { rowJsonSql } from '../db/columns.ts'
import { quoteIdentifier, quoteLiteral } from '../db/identifier.ts'
import { type Envelope, rectanglesOf } from '../wire/bbox.ts'
import type { Bbox } from '../wire/messages.ts'

/** How many bytes the row of alias `t` has as JSON in UTF-8, whatever the encoding of the database. */
export function bytesSql({ columns, postgis }: Table): string {
  return `octet_length(convert_to(${rowJsonSql(columns, postgis)}, 'UTF8'))`
}

/** The same of a row by its id, `$1`. Column `bytes`. */
export function rowBytesSql(table: Table): string {
  const column = `t.${quoteIdentifier(table.id.column)}`
  return `select ${bytesSql(table)} as bytes from ${table.qualified} t where ${column} = $1::${table.id.sqlType}`
}

/** The ids of the rows within a box (null: of a table without geometry), at most `limit`. Column `id`. */
export function viewIdsSql(table: Table, bbox: Bbox | null, limit: number): string {
  return `select t.${quoteIdentifier(table.id.column)}::text as id ${inViewSql(table, bbox)} limit ${limit}`
}

/** Larger rows are not streamed, so that a fetch of many is bounded; they are read by id, few at a time. */
export const STREAMED_ROW_CHARACTERS_MAX = 64 * 1024

/** The rows within a box. Columns `id` and `json`, which is null for a large row. */
export function viewRowsSql(table: Table, bbox: Bbox | null, limit: number): string {
  const id = `t.${quoteIdentifier(table.id.column)}::text as id`
  const rows = `select ${id}, ${rowJsonSql(table.columns, table.postgis)} as json ${inViewSql(table, bbox)} limit ${limit}`
  return `select v.id, case when length(v.json) <= ${STREAMED_ROW_CHARACTERS_MAX} then v.json end as json from (${rows}) v`
}

function inViewSql(table: Table, bbox: Bbox | null): string {
  const { geometry, qualified } = table
  if (geometry === null || bbox === null) return `from ${qualified} t`
  const rectangles = rectanglesOf(bbox)
  const exact = rectangles.map((rectangle) => withinSql(rectangle, table.postgis)).join(' or ')
  const near = nearSql(table, rectangles)
  return `from ${qualified} t, lateral (select ${geometry.wireSql} as g offset 0) w where ${near}(${exact})`
}

/**
 * The exact rule, the same as `intersects` in wire/bbox.ts. Postgres sorts NaN above Infinity, so the upper bounds keep
 * NaN out as comparisons do in JavaScript.
 */
function withinSql({ minX, minY, maxX, maxY }: Envelope, postgis: string): string {
  const edge = (name: string) => `${postgis}.st_${name}(w.g)`
  return `(${edge('xmin')} <= ${float(maxX)} and ${edge('xmax')} between ${float(minX)} and 'Infinity' and ${edge('ymin')} <= ${float(maxY)} and ${edge('ymax')} between ${float(minY)} and 'Infinity')`
}

/** A condition that the spatial index can answer and that every row within the box meets; '' where there is none. */
function nearSql(table: Table, rectangles: readonly Envelope[]): string {
  const { geometry, postgis } = table
  if (geometry === null) return ''
  const areas = nativeAreas(geometry.column.baseType, geometry.column.srid, rectangles)
  if (areas === null) return ''
  const envelopes = areas.map(
    ({ minX, minY, maxX, maxY }) =>
      `${postgis}.st_makeenvelope(${float(minX)}, ${float(minY)}, ${float(maxX)}, ${float(maxY)}, ${geometry.column.srid})`,
  )
  const column = `t.${quoteIdentifier(geometry.column.name)}`
  if (table.rowSecurity && table.candidatesBypass && !table.hasChildren) {
    const array = `array[${envelopes.join(', ')}]::${postgis}.geometry[]`
    const relation = `${quoteLiteral(table.qualified)}::regclass`
    return `t.ctid = any ((select datum.candidates(${relation}, ${array}))::tid[]) and `
  }
  return `(${envelopes.map((envelope) => `${column} operator(${postgis}.&&) ${envelope}`).join(' or ')}) and `
}

/** Half the width of the Web Mercator square, in metres (EPSG:3857). */
const MERCATOR_HALF = 20037508.342789244
/** North and south of this, in degrees, Web Mercator runs off to infinity. */
const MERCATOR_LATITUDE_MAX = 85
const FAR = 1e12

/**
 * The box in the column's own SRID, generously. Null where that cannot be done exactly: then the whole table is read
 * and `check` says so.
 */
function nativeAreas(
  baseType: string,
  srid: number,
  rectangles: readonly Envelope[],
): readonly Envelope[] | null {
  if (baseType !== 'geometry') return null
  if (srid === 4326) return rectangles
  if (srid !== 3857) return null
  const areas = rectangles.map(({ minX, minY, maxX, maxY }) => ({
    minX: (minX / 180) * MERCATOR_HALF - 1,
    maxX: (maxX / 180) * MERCATOR_HALF + 1,
    minY: mercatorY(minY) - 1,
    maxY: mercatorY(maxY) + 1,
  }))
  // What lies outside of the square wraps around to some other longitude, so it is always looked at.
  return [
    ...areas,
    { minX: MERCATOR_HALF, minY: -FAR, maxX: FAR, maxY: FAR },
    { minX: -FAR, minY: -FAR, maxX: -MERCATOR_HALF, maxY: FAR },
  ]
}

function mercatorY(latitude: number): number {
  if (latitude > MERCATOR_LATITUDE_MAX) return FAR
  if (latitude < -MERCATOR_LATITUDE_MAX) return -FAR
  return (Math.log(Math.tan(Math.PI / 4 + (latitude * Math.PI) / 360)) / Math.PI) * MERCATOR_HALF
}

/** A finite number as an SQL constant with every digit. */
function float(value: number): string {
  if (!Number.isFinite(value)) throw new RangeError('a box has finite edges')
  return `'${value}'::float8`
}
