/**
 * The one door to the database under a principal: no other code sets claims. Everything set here is local to its
 * transaction (`set_config(…, true)`, Postgres §9.27) and passed as bound parameters, so no claim outlives its use and
 * none is ever part of a statement's text.
 */
import type { Sql, TransactionSql } from 'postgres'
import type { Table } from './catalog.ts'
import { EXPECTED_SETTINGS_SQL } from './expected-settings.ts'
import { rowsByIdSql } from './read-function.ts'
import { NOT_REPLAYED, NotFromReplica, provenSql, type ReplicaProof } from './replica-proof.ts'

/** Names and values of settings, as the policies will read them. */
export type ClaimSettings = Readonly<Record<string, string>>

interface PrincipalScope {
  readonly settings: ClaimSettings
  readonly access: 'read only' | 'read write'
  /** `statement_timeout` of each statement in it. */
  readonly timeoutMs: number
  /** `lock_timeout`: how long one may wait for a lock. Default: as long as the statement may take. */
  readonly lockTimeoutMs?: number
  /** Where `sql` is of a replica: what it must show. Rejects with {@link NotFromReplica} if it does not. */
  readonly proof?: ReplicaProof | null
}

/** Ends a transaction that only read: what policies kept in their session, for the next user of it, is undone too. */
const UNDONE = new Error('undone')

/**
 * Runs `work` in a transaction of its own in which the claims are set. Commits what was written when it resolves, else
 * rolls back.
 */
export async function asPrincipal<T>(
  sql: Sql,
  { settings, access, timeoutMs, lockTimeoutMs = timeoutMs, proof = null }: PrincipalScope,
  work: (transaction: TransactionSql) => Promise<T>,
): Promise<T> {
  let result: T | undefined
  const ended = sql.begin(access, async (transaction) => {
    // An object travels as the one jsonb parameter; the values never meet SQL text.
    // Checked by the statement before the one that reads, which so has what is replayed by now.
    const proven =
      proof === null
        ? transaction`true`
        : transaction`(select ${transaction.unsafe(provenSql('asked.lsn', 'asked.run'))}
             from (values (${proof.replayed}::text, ${proof.run}::text)) asked (lsn, run))`
    const [scope] = await transaction<{ proven: boolean }[]>`
      select ${proven} as proven, set_config('statement_timeout', ${String(timeoutMs)}, true), set_config('lock_timeout', ${String(lockTimeoutMs)}, true),
             -- Compiling takes longer than most reads, and what is read here is estimated badly: claims are no constants.
             set_config('jit', 'off', true), ${transaction.unsafe(EXPECTED_SETTINGS_SQL)},
             (select count(set_config(claim.key, claim.value, true)) from jsonb_each_text(${transaction.json(settings)}) claim)`
    if (scope?.proven !== true) throw new NotFromReplica(NOT_REPLAYED)
    result = await work(transaction)
    if (access === 'read only') throw UNDONE
  })
  await ended.catch((error) => {
    if (error !== UNDONE) throw error
  })
  return result as T
}

/** What one class asks for: rows by id under its claims. Classes that share one array of ids cost less. */
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
      readonly rows: readonly ReadRow[]
      /** There, but too much for one answer. */
      readonly unread: readonly string[]
    }
  | { readonly error: string }

export interface ReadForClasses {
  readonly results: readonly ClassResult[]
  /** The table's fingerprint after the reading. If it is not the one the query was made for, send nothing of this. */
  readonly fingerprint: string
}

/** Columns of `datum.read_as`, in their order. */
type RawRow = readonly [
  class_: number,
  id: string,
  minX: number | null,
  minY: number | null,
  maxX: number | null,
  maxY: number | null,
  json: string | null,
  error: string | null,
]

interface ReadLimits {
  /** When to cancel the statement (SQLSTATE 57014); null where the transaction has a limit, or nothing can be cancelled. */
  readonly timeoutMs: number | null
  /** Characters of JSON for each class. */
  readonly lengthMax: number
  /**
   * Where `sql` is of a replica, and no transaction has seen to it: what it must show. Without that no function is called,
   * and there is no answer: rejects with {@link NotFromReplica}.
   */
  readonly proof?: ReplicaProof | null
}

/**
 * Reads rows of a table by id for many classes in one statement (`datum.read_as`), as the server's role, so row security
 * decides for each class by its own claims.
 */
export async function readForClasses(
  sql: Sql | TransactionSql,
  table: Table,
  classes: readonly ClassRead[],
  { timeoutMs, lengthMax, proof = null }: ReadLimits,
): Promise<ReadForClasses> {
  const { names, settings, ids, first, last } = argumentsOf(classes)
  // Where it is known what policies read it is also known that they leave nothing behind.
  const apart = table.policyReads.reading === null
  const parameters = [...[names, settings, ids, first, last].map(arrayLiteral), Math.floor(lengthMax), apart]
  const given =
    '$1::text::text[], $2::text::text[], $3::text::text[], $4::text::int[], $5::text::int[], $6::int8, $7::bool'
  const [call, own] =
    table.readFunction === null
      ? [
          (oid: string) => `datum.read_as(${given}, $9::text, ${oid})`,
          [rowsByIdSql(table, `$1::${table.id.sqlType}[]`)],
        ]
      : [(oid: string) => `${table.readFunction}(${given}, ${oid})`, []]
  const reading = sql.unsafe(
    callSql(call, proof === null ? null : 9 + own.length),
    [...parameters, table.oid, ...own, ...(proof === null ? [] : [proof.replayed, proof.run])],
    { prepare: true },
  )
  // Cancelled from here, because statement_timeout would need a transaction and its round trips around the statement.
  const timer = timeoutMs === null ? undefined : setTimeout(() => reading.cancel(), timeoutMs)
  const rows = (await reading.values().finally(() => clearTimeout(timer))) as unknown as RawRow[]
  const results: ({ rows: ReadRow[]; unread: string[] } | { error: string })[] = classes.map(() => ({
    rows: [],
    unread: [],
  }))
  let fingerprint = ''
  for (const [number, id, minX, minY, maxX, maxY, json, error] of rows) {
    const result = results[number - 1]
    if (number === 0) fingerprint = id
    else if (error !== null) results[number - 1] = { error }
    else if (result !== undefined && 'rows' in result) {
      if (json === null) result.unread.push(id)
      else result.rows.push({ id, minX, minY, maxX, maxY, json })
    }
  }
  if (proof !== null && rows.length === 0) throw new NotFromReplica(NOT_REPLAYED)
  return { results, fingerprint }
}

/**
 * A call that is made only after the expected settings are set, and the condition of a replica's proof (null: none) was found
 * true: the argument that refers to it sees to the order. The functions are volatile, so each query in them takes a
 * snapshot of its own, after that.
 */
function callSql(call: (oid: string) => string, proofParameter: number | null): string {
  const proven =
    proofParameter === null ? '' : ` and ${provenSql(`$${proofParameter}`, `$${proofParameter + 1}`)}`
  return `select answer.* from (select ${EXPECTED_SETTINGS_SQL}${proven} as is_ready offset 0) session,
    lateral ${call('case when session.is_ready then $8::oid end')} answer where session.is_ready`
}

/** The arrays that `datum.read_as` takes: every class sets every name, and ids that classes share are listed once. */
function argumentsOf(classes: readonly ClassRead[]) {
  const names = [...new Set(classes.flatMap(({ settings }) => Object.keys(settings)))]
  const settings: string[] = []
  const ids: string[] = []
  const first: number[] = []
  const last: number[] = []
  const places = new Map<readonly string[], number>()
  for (const read of classes) {
    for (const name of names) settings.push(read.settings[name] ?? '')
    let place = places.get(read.ids)
    if (place === undefined) {
      place = ids.length + 1
      places.set(read.ids, place)
      for (const id of read.ids) ids.push(id)
    }
    first.push(place)
    last.push(place + read.ids.length - 1)
  }
  return { names, settings, ids, first, last }
}

/** An array as Postgres reads it from text (Postgres §8.15.2), every element quoted. */
function arrayLiteral(elements: readonly (string | number)[]): string {
  return `{${elements.map((element) => (typeof element === 'number' ? element : `"${element.replace(/["\\]/g, '\\$&')}"`)).join(',')}}`
}
