/**
 * An edit as the application sees it before the server has: what is sent, and what it does to a row meanwhile.
 * `view.ts` keeps those that are in force, `write-queue.ts` sends them.
 */
import type { Edit, Id, Json, Row, TableInfo } from '../src/wire/messages.ts'
import { copyColumns } from './json.ts'
import { canonicalId, idValue } from './row-id.ts'

export interface LocalEdit {
  readonly op: Edit['op']
  /** The row it shows on: its id, or a local key while only the server can say the id of an inserted row. */
  key: Id
  /** Insert: the whole row. Update: the changed columns. */
  columns: Row
  /** The batch in which the server applied it; null while its outcome is unknown. */
  batch: string | null
  /** Whether the view that is being filled is known to contain it. */
  inNextView: boolean
}

export interface Draft {
  readonly edit: Edit
  readonly local: LocalEdit
  /** The row gets its id from the server, and `local.key` is a stand-in. */
  readonly keyIsLocal: boolean
}

/** Throws `invalid`. `uuid` makes new UUIDs. */
export function draftInsert(given: unknown, table: TableInfo, uuid: () => string): Draft {
  const columns = copyColumns(given)
  const { idColumn, idType } = table
  const hasId = Object.hasOwn(columns, idColumn) && columns[idColumn] !== null
  const keyIsLocal = !hasId && idType !== 'uuid'
  if (keyIsLocal) {
    const key = `local:${uuid()}`
    const edit: Edit = { op: 'insert', columns: without(columns, idColumn) }
    return { edit, local: localEdit('insert', key, localRow(columns, key, table)), keyIsLocal }
  }
  const id = hasId ? canonicalId(columns[idColumn], idType) : uuid()
  const sent = withColumn(columns, idColumn, hasId && idType !== 'uuid' ? columns[idColumn]! : id)
  return {
    edit: { op: 'insert', columns: sent },
    local: localEdit('insert', id, localRow(columns, idValue(id, table), table)),
    keyIsLocal,
  }
}

/** Throws `invalid`. */
export function draftUpdate(key: Id, given: unknown, table: TableInfo): Draft {
  const columns = copyColumns(given)
  // A row that is given another id shows as it was until the server has moved it.
  const others = without(columns, table.idColumn)
  // `update(row.id, { ...row, name })` is no attempt to change the id.
  const sameId = Object.hasOwn(columns, table.idColumn) && String(columns[table.idColumn]) === key
  const edit: Edit = { op: 'update', id: key, columns: sameId ? others : columns }
  return { edit, local: localEdit('update', key, others), keyIsLocal: false }
}

export function draftDelete(key: Id): Draft {
  return { edit: { op: 'delete', id: key }, local: localEdit('delete', key, {}), keyIsLocal: false }
}

/** The row after the edits, in their order; undefined if there is none. */
export function applyEdits(base: Row | undefined, edits: readonly LocalEdit[]): Row | undefined {
  let row = base
  for (const { op, columns } of edits) {
    if (op === 'delete') row = undefined
    // The server's row has what triggers and defaults made of the insert.
    else if (op === 'insert') row ??= columns
    else if (row !== undefined) row = { ...row, ...columns }
  }
  return row
}

/** The same row with one column set. Entries, since assigning to `__proto__` would not make a column. */
export function withColumn(row: Row, column: string, value: Json): Row {
  if (!Object.hasOwn(row, column)) return Object.fromEntries([...Object.entries(row), [column, value]])
  return Object.fromEntries(Object.entries(row).map(([name, old]) => [name, name === column ? value : old]))
}

function without(row: Row, column: string): Row {
  return Object.fromEntries(Object.entries(row).filter(([name]) => name !== column))
}

/** An inserted row with every column of the table, so that it looks like its neighbours. */
function localRow(columns: Row, id: Json, { idColumn, columns: known }: TableInfo): Row {
  const nothing = Object.fromEntries(known.map(({ name }) => [name, null]))
  return withColumn({ ...nothing, ...columns }, idColumn, id)
}

function localEdit(op: Edit['op'], key: Id, columns: Row): LocalEdit {
  return { op, key, columns, batch: null, inNextView: false }
}
