/** Row ids: the text that the wire and the maps of the client use, made from whatever an application has at hand. */
import { ID_LENGTH_MAX } from '../src/wire/limits.ts'
import type { Id, Json, Row, TableInfo } from '../src/wire/messages.ts'
import { DatumError } from './datum-error.ts'

/** The id of a row that the server sent. */
export function idOfRow(row: Row, idColumn: string): Id {
  // A table may have no column of this name but Object.prototype may: `constructor`.
  if (!Object.hasOwn(row, idColumn)) throw new Error('a row without its id')
  return String(row[idColumn])
}

/** An id as Postgres would print it, so that it finds its row. Throws `invalid`. */
export function canonicalId(value: unknown, idType: TableInfo['idType']): Id {
  if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'bigint')
    throw new DatumError('invalid', 'A row id must be a string or an integer.')
  const text = String(value)
  if (text.length > ID_LENGTH_MAX)
    throw new DatumError('invalid', `A row id has at most ${ID_LENGTH_MAX} characters.`)
  if (idType === 'uuid') return canonicalUuid(text)
  if (idType === 'integer' && /^\s*[-+]?\d+\s*$/.test(text)) return String(BigInt(text.replace('+', '')))
  return text
}

/** Postgres takes UUIDs in braces, in capitals and with other hyphens, and always prints one form. */
function canonicalUuid(text: string): Id {
  const hex = text.toLowerCase().replace(/[{}-]/g, '')
  if (!/^[0-9a-f]{32}$/.test(hex)) return text
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

/** What stands in a row's id column for this id: a number where the column's type fits into one. */
export function idValue(id: Id, table: TableInfo): Json {
  const type = table.columns.find(({ name }) => name === table.idColumn)?.type
  return type === 'integer' || type === 'smallint' ? Number(id) : id
}
