/**
 * One edit as one statement. Values travel as one JSON parameter and become columns in Postgres
 * (`jsonb_to_record`, Postgres §9.16), so arrays, domains, big numbers and times are read by Postgres itself.
 */
import type { Table } from '../db/catalog.ts'
import type { Column } from '../db/columns.ts'
import { isSpatial } from '../db/columns.ts'
import { quoteIdentifier, quoteLiteral } from '../db/identifier.ts'
import { ID_LENGTH_MAX } from '../wire/limits.ts'
import type { Edit, Json, Row } from '../wire/messages.ts'
import { bytesSql } from './read-sql.ts'

/** Postgres cuts identifiers at 63 bytes (Postgres §4.1.1). */
const COLUMN_NAME_LENGTH_MAX = 63

/** The edit cannot be a statement: what is wrong with it, in words that repeat none of its values. */
export class InvalidEdit extends Error {}

export interface EditStatement {
  readonly text: string
  /** `$1` is the columns as JSON (insert, update); the id comes last (update, delete). */
  readonly parameters: readonly (string | Row)[]
  /** The id if it is known before the statement ran; otherwise the statement returns it as `id`. */
  readonly id: string | null
  /** How large the row has become: the statement returns it as `bytes`; it is to be asked; or nothing has become of it. */
  readonly size: 'returned' | 'unknown' | 'none'
}

export function editStatement(table: Table, edit: Edit): EditStatement {
  switch (edit.op) {
    case 'insert':
      return insertStatement(table, edit.columns)
    case 'update':
      return updateStatement(table, canonicalId(table, edit.id), edit.columns)
    case 'delete': {
      const id = canonicalId(table, edit.id)
      return {
        text: `delete from ${table.qualified} t where ${idIs(table, 1)}`,
        parameters: [id],
        id,
        size: 'none',
      }
    }
  }
}

function insertStatement(table: Table, values: Row): EditStatement {
  const columns = columnsOf(table, values)
  const given = values[table.id.column]
  // RETURNING needs the new row to pass the policies for SELECT too, which an insert does not; so the id, and the size, are
  // only asked for where Postgres makes it.
  const returning =
    given === undefined
      ? ` returning t.${quoteIdentifier(table.id.column)}::text as id, ${bytesSql(table)} as bytes`
      : ''
  if (columns.length === 0) {
    return {
      text: `insert into ${table.qualified} as t default values${returning}`,
      parameters: [],
      id: null,
      size: 'returned',
    }
  }
  const names = columns.map(({ name }) => quoteIdentifier(name)).join(', ')
  const sources = columns.map((column) => valueSql(table, column)).join(', ')
  return {
    text: `insert into ${table.qualified} as t (${names}) select ${sources} from ${recordSql(columns)}${returning}`,
    parameters: [values],
    id: given === undefined ? null : canonicalId(table, given),
    size: given === undefined ? 'returned' : 'unknown',
  }
}

function updateStatement(table: Table, id: string, values: Row): EditStatement {
  const columns = columnsOf(table, values)
  if (columns.length === 0) throw new InvalidEdit('an update names at least one column')
  if (columns.some(({ name }) => name === table.id.column)) {
    throw new InvalidEdit(
      `the id column ${table.id.column} cannot be changed: delete the row and insert another`,
    )
  }
  const assignments = columns
    .map((column) => `${quoteIdentifier(column.name)} = ${valueSql(table, column)}`)
    .join(', ')
  return {
    // The policies for SELECT hold here anyway, since the statement looks for the row (PostgreSQL, CREATE POLICY).
    text: `update ${table.qualified} t set ${assignments} from ${recordSql(columns)} where ${idIs(table, 2)} returning ${bytesSql(table)} as bytes`,
    parameters: [values, id],
    id,
    size: 'returned',
  }
}

function columnsOf(table: Table, values: Row): Column[] {
  return Object.keys(values).map((name) => {
    const column = table.columns.find((candidate) => candidate.name === name)
    if (column === undefined) throw new InvalidEdit(`the table has no column ${nameToShow(name)}`)
    if (isSpatial(column)) checkGeometry(name, values[name] ?? null)
    return column
  })
}

/**
 * A name to repeat in an outcome. Outcomes are kept for a day, so that what nobody could mean for a column is not
 * repeated: a name of megabytes would be kept with them.
 */
function nameToShow(name: string): string {
  return name.length <= COLUMN_NAME_LENGTH_MAX ? JSON.stringify(name) : 'of so long a name'
}

/** `jsonb_to_record($1) as r(…)`. Geometries stay JSON here; {@link valueSql} reads them. */
function recordSql(columns: readonly Column[]): string {
  const fields = columns.map(
    (column) => `${quoteIdentifier(column.name)} ${isSpatial(column) ? 'jsonb' : column.type}`,
  )
  return `jsonb_to_record($1::jsonb) as r(${fields.join(', ')})`
}

function valueSql({ postgis }: Table, column: Column): string {
  const value = `r.${quoteIdentifier(column.name)}`
  if (!isSpatial(column)) return value
  const wire = `${postgis}.st_setsrid(${postgis}.st_geomfromgeojson(nullif(${value}, 'null'::jsonb)), 4326)`
  if (column.baseType === 'geography') return `${wire}::${postgis}.geography`
  return column.srid === 0 || column.srid === 4326 ? wire : `${postgis}.st_transform(${wire}, ${column.srid})`
}

function idIs(table: Table, parameter: number): string {
  return `t.${quoteIdentifier(table.id.column)} = $${parameter}::${table.id.sqlType}`
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
const INTEGER = /^-?\d{1,19}$/
const INTEGER_BITS: Readonly<Record<string, number>> = { int2: 16, int4: 32, int8: 64 }

/** An id as Postgres writes it. Throws {@link InvalidEdit} for one that the column's type cannot hold. */
export function canonicalId({ id: { column, sqlType } }: Table, value: Json): string {
  const text = typeof value === 'number' ? String(value) : value
  if (typeof text !== 'string') throw new InvalidEdit(`the id ${column} must be a string or an integer`)
  if (sqlType === 'text') {
    // Half a character would become another one on its way, and name another row.
    if (!text.isWellFormed()) throw new InvalidEdit(`the id ${column} must be well-formed Unicode`)
    if (text.includes('\0')) throw new InvalidEdit(`the id ${column} must not contain NUL`)
    // A row under a longer one could be seen, but neither changed nor named in a `resume`.
    if (text.length > ID_LENGTH_MAX)
      throw new InvalidEdit(`the id ${column} may have ${ID_LENGTH_MAX} characters`)
    return text
  }
  if (sqlType === 'uuid') {
    if (!UUID.test(text)) throw new InvalidEdit(`the id ${column} must be a UUID`)
    return text.toLowerCase()
  }
  const bits = INTEGER_BITS[sqlType] ?? 64
  if (!INTEGER.test(text) || BigInt.asIntN(bits, BigInt(text)) !== BigInt(text)) {
    throw new InvalidEdit(`the id ${column} must be an integer of ${bits} bits`)
  }
  return BigInt(text).toString()
}

function checkGeometry(name: string, value: Json): void {
  if (value === null) return
  const isGeometry =
    typeof value === 'object' &&
    !Array.isArray(value) &&
    typeof (value as { type?: Json }).type === 'string' &&
    !('crs' in value)
  if (!isGeometry)
    throw new InvalidEdit(`the column ${quoteLiteral(name)} takes a GeoJSON geometry in WGS 84, or null`)
}
