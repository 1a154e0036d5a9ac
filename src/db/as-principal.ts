/**
 * The one door to the database under a principal: no other code sets claims. Everything set here is local to its
 * transaction (`set_config(…, true)`, Postgres §9.27) and passed as bound parameters, so no claim outlives its use and
 * none is ever part of a statement's text.
 */
import type { Sql, TransactionSql } from 'postgres'

/** Names and values of settings, as the policies will read them. */
export type ClaimSettings = Readonly<Record<string, string>>

export interface PrincipalScope {
  readonly settings: ClaimSettings
  readonly access: 'read only' | 'read write'
  /** `statement_timeout` of each statement in it. */
  readonly timeoutMs: number
  /** `lock_timeout`: how long one may wait for a lock. Default: as long as the statement may take. */
  readonly lockTimeoutMs?: number
}

/** Runs `work` in a transaction of its own in which the claims are set. Commits when it resolves, else rolls back. */
export async function asPrincipal<T>(
  sql: Sql,
  { settings, access, timeoutMs, lockTimeoutMs = timeoutMs }: PrincipalScope,
  work: (transaction: TransactionSql) => Promise<T>,
): Promise<T> {
  const result = await sql.begin(access, async (transaction) => {
    // An object travels as the one jsonb parameter; the values never meet SQL text.
    await transaction`
      select set_config('statement_timeout', ${String(timeoutMs)}, true), set_config('lock_timeout', ${String(lockTimeoutMs)}, true),
             (select count(set_config(claim.key, claim.value, true)) from jsonb_each_text(${transaction.json(settings)}) claim)`
    return work(transaction)
  })
  return result as T
}

/** What one class asks for: rows by id under its claims. */
export interface ClassRead {
  readonly settings: ClaimSettings
  readonly ids: readonly string[]
}

/** A row as read for one class: where it is (null: nowhere), and its JSON as Postgres made it. */
export interface ReadRow {
  readonly id: string
  readonly minX: number | null
  readonly minY: number | null
  readonly maxX: number | null
  readonly maxY: number | null
  readonly json: string
}

/** One class's rows, or the SQLSTATE of the error that its policies raised. */
export type ClassResult =
  | {
      readonly rows: readonly ReadRow[] /** There, but too much for one answer. */
      readonly unread: readonly string[]
    }
  | { readonly error: string }

export interface ReadForClasses {
  readonly results: readonly ClassResult[]
  /** The table's fingerprint after the reading. If it is not the one the query was made for, send nothing of this. */
  readonly fingerprint: string
}

interface RawRow {
  class: number
  id: string
  min_x: number | null
  min_y: number | null
  max_x: number | null
  max_y: number | null
  row_json: string | null
  error: string | null
}

export interface ReadLimits {
  /** When to cancel the statement (SQLSTATE 57014); null where the transaction has a limit, or nothing can be cancelled. */
  readonly timeoutMs: number | null
  /** Characters of JSON for each class. */
  readonly lengthMax: number
}

/**
 * Reads for many classes in one statement (`datum.read_as`). `query` takes the ids as `$1` and is read as the server's
 * role, so row level security decides for each class by its own claims.
 */
export async function readForClasses(
  sql: Sql | TransactionSql,
  classes: readonly ClassRead[],
  query: string,
  tableOid: number,
  { timeoutMs, lengthMax }: ReadLimits,
): Promise<ReadForClasses> {
  const reading = sql<RawRow[]>`
    select class, id, min_x, min_y, max_x, max_y, row_json, error
    from datum.read_as(${sql.json(classes as never)}, ${query}, ${tableOid}, ${Math.floor(lengthMax)})`
  // Cancelled from here, because statement_timeout would need a transaction and its round trips around the statement.
  const timer = timeoutMs === null ? undefined : setTimeout(() => reading.cancel(), timeoutMs)
  const rows = await reading.finally(() => clearTimeout(timer))
  const results: ({ rows: ReadRow[]; unread: string[] } | { error: string })[] = classes.map(() => ({
    rows: [],
    unread: [],
  }))
  let fingerprint = ''
  for (const row of rows) {
    const result = results[row.class]
    if (row.class === -1) fingerprint = row.id
    else if (row.error !== null) results[row.class] = { error: row.error }
    else if (result !== undefined && 'rows' in result) {
      if (row.row_json === null) result.unread.push(row.id)
      else result.rows.push(readRowOf(row, row.row_json))
    }
  }
  return { results, fingerprint }
}

function readRowOf(
  { id, min_x: minX, min_y: minY, max_x: maxX, max_y: maxY }: RawRow,
  json: string,
): ReadRow {
  return { id, minX, minY, maxX, maxY, json }
}
