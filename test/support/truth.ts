/**
 * What a subscription must show, found without any of the server's code: a plain `SELECT` as the restricted role with
 * the claims set, and the in-view rule spelled out in SQL.
 */
import type { PendingQuery, Row as PostgresRow, Sql, TransactionSql } from 'postgres'
import type { Bbox, Id } from '../../src/wire/messages.ts'
import { APP_ROLE } from './postgres.ts'
import type { Claims } from './token.ts'

export interface TruthQuery {
  readonly table: string
  readonly idColumn?: string
  /** null for a table without geometry. */
  readonly geometryColumn?: string | null
  readonly bbox?: Bbox | undefined
}

/** A row in the form in which views are compared: every column as text, the geometry as WGS 84 GeoJSON. */
export type ComparableRow = Readonly<Record<string, string | null>>

/** The rows that `claims` may see in the box, by id. Rejects if a policy raises an error. */
export function truth(admin: Sql, claims: Claims, query: TruthQuery): Promise<Map<Id, ComparableRow>> {
  const { table, idColumn = 'id', geometryColumn = 'geom', bbox } = query
  return admin.begin(async (tx) => {
    await becomeApp(tx, claims)
    const geometry = geometryColumn && tx`st_transform(${tx(geometryColumn)}::geometry, 4326)`
    const rows = await tx`
      select t.${tx(idColumn)}::text as id,
        (select jsonb_object_agg(key, value) from jsonb_each_text(to_jsonb(t)) where key is distinct from ${geometryColumn})
          as columns,
        ${geometry ? tx`st_asgeojson(${geometry}, 15)` : tx`null`} as geometry
      from ${tx(table)} t
      where ${geometry && bbox ? inBox(tx, geometry, bbox) : tx`true`}`
    return new Map(
      rows.map((row) => {
        const columns = row.columns as Record<string, string | null>
        return [row.id as Id, geometryColumn ? { ...columns, [geometryColumn]: row.geometry } : columns]
      }),
    )
  }) as Promise<Map<Id, ComparableRow>>
}

async function becomeApp(tx: TransactionSql, claims: Claims): Promise<void> {
  for (const [name, value] of Object.entries(claims)) {
    if (!/^[a-z_][a-z0-9_]*$/i.test(name)) continue
    const text = value === null ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value)
    await tx`select set_config(${`datum.${name}`}, ${text}, true)`
  }
  await tx`select set_config('request.jwt.claims', ${JSON.stringify(claims)}, true)`
  await tx.unsafe(`set local role ${APP_ROLE}`)
}

/** The in-view rule: the WGS 84 envelope touches the box, edges included; what has no envelope is in no box. */
function inBox(tx: TransactionSql, geometry: PendingQuery<PostgresRow[]>, [west, south, east, north]: Bbox) {
  const touches = (minX: number, maxX: number) => tx`(
    st_xmin(${geometry}) <= ${maxX}::float8 and st_xmax(${geometry}) >= ${minX}::float8 and
    st_ymin(${geometry}) <= ${north}::float8 and st_ymax(${geometry}) >= ${south}::float8)`
  if (west <= east) return touches(west, east)
  return tx`(${touches(west, 180)} or ${touches(-180, east)})`
}
