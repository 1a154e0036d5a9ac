/**
 * How a column's value becomes JSON text inside Postgres, without loss: integers that JavaScript cannot hold, numerics
 * and money become strings; floats that JSON cannot hold (NaN, infinities) too. The server splices these texts and
 * never parses a row.
 */
import { quoteIdentifier, quoteLiteral } from './identifier.ts'

/** A column as the catalog describes it; domains by the type they are made of. */
export interface Column {
  readonly name: string
  /** `format_type()` of the declared type. */
  readonly type: string
  /** `pg_type.typname` of the base type: `int8`, `_int8` for its array, `geometry`, … */
  readonly baseType: string
  /** SRID of a geometry or geography column; 0 where it is not fixed, or the column is neither. */
  readonly srid: number
  /** `pg_type.typtype` of the base type: b base, c composite, e enum, r range, m multirange, p pseudo. */
  readonly kind: string
  readonly notNull: boolean
  readonly hasDefault: boolean
}

const BARE = new Set(['bool', 'int2', 'int4', 'oid'])
const QUOTED_DIGITS = new Set(['int8', 'numeric'])
const AS_TO_JSON = new Set(['timestamp', 'timestamptz', 'date', 'float4', 'float8', 'bpchar'])
const EXACT_ELEMENTS = new Set([
  '_bool',
  '_int2',
  '_int4',
  '_float4',
  '_float8',
  '_text',
  '_varchar',
  '_bpchar',
  '_uuid',
  '_timestamp',
  '_timestamptz',
  '_date',
  '_json',
  '_jsonb',
])

/** SQL for the JSON text of a whole row of alias `t`. `postgis` is PostGIS's schema, quoted. */
export function rowJsonSql(columns: readonly Column[], postgis: string): string {
  const parts = columns.map((column, index) => {
    const key = `${index === 0 ? '{' : ','}${JSON.stringify(column.name)}:`
    const value = presentJsonSql(column, `t.${quoteIdentifier(column.name)}`, postgis)
    return `${quoteLiteral(key)} || coalesce(${value}, 'null')`
  })
  // Not concat(), which takes 100 arguments at most. No part is ever null.
  return `(${parts.join(' || ')} || '}')`
}

/** SQL for a geometry or geography column in WGS 84, null where it cannot be transformed. */
export function wgs84Sql(column: Column, value: string, postgis: string): string {
  if (column.baseType === 'geography' && (column.srid === 4326 || column.srid === 0))
    return `${value}::${postgis}.geometry`
  if (column.srid === 4326) return value
  return `datum.to_wgs84(${value}::${postgis}.geometry)`
}

function presentJsonSql(column: Column, value: string, postgis: string): string {
  const { baseType, kind } = column
  if (BARE.has(baseType)) return `${value}::text`
  if (QUOTED_DIGITS.has(baseType)) return `'"' || ${value}::text || '"'`
  if (AS_TO_JSON.has(baseType)) return `to_json(${value})::text`
  if (baseType === 'json' || baseType === 'jsonb') return `${value}::text`
  if (baseType === 'bytea') return `to_json(${quoteLiteral('\\x')} || encode(${value}, 'hex'))::text`
  if (isSpatial(column)) return geoJsonSql(wgs84Sql(column, value, postgis), postgis)
  if (EXACT_ELEMENTS.has(baseType)) return `to_json(${value})::text`
  if (baseType.startsWith('_') && kind === 'b') return `to_json(${value}::text[])::text`
  return `to_json(${value}::text)::text`
}

export function isSpatial(column: Column): boolean {
  return column.baseType === 'geometry' || column.baseType === 'geography'
}

/**
 * GeoJSON with every digit. Arcs become lines, since GeoJSON has none; what GeoJSON cannot say at all (TINs, NaN or
 * infinite coordinates) becomes null rather than an error, which would take other rows' statement with it. No GeoJSON
 * type or key has a capital N or I, but `NaN` and `Infinity` do.
 */
function geoJsonSql(geometry: string, postgis: string): string {
  return `(select case when g.text like '%N%' or g.text like '%I%' then null else g.text end from (
    select case
      when ${postgis}.geometrytype(w.g) in ('TIN', 'TRIANGLE', 'POLYHEDRALSURFACE') then null
      when ${postgis}.st_hasarc(w.g) then ${postgis}.st_asgeojson(${postgis}.st_curvetoline(w.g), 15, 0)
      else ${postgis}.st_asgeojson(w.g, 15, 0) end as text
    from (select ${geometry} as g offset 0) w offset 0) g)`
}
