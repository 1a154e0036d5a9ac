/** The database side of a subscription that catches up: one principal class at a time, from its own transaction. */
import type { TransactionSql } from 'postgres'
import { asPrincipal, readForClasses } from '../db/as-principal.ts'
import type { Table } from '../db/catalog.ts'
import type { Database } from '../db/database.ts'
import { errorCode, isSqlState, isUnavailable, QUERY_CANCELLED } from '../db/error-code.ts'
import { insistOn, type ReadSource } from '../db/reads.ts'
import { throwWithoutSchema } from '../db/schema-version.ts'
import { ROWS_PER_SUBSCRIPTION_MAX } from '../wire/limits.ts'
import type { Id } from '../wire/messages.ts'
import type { ReadGates } from './read-gates.ts'
import { viewIdsSql, viewRowsSql } from './read-sql.ts'
import type { RowSize } from './row-size.ts'
import type { SlowClasses } from './slow-classes.ts'
import { type ReadFor, TableChanged, type ViewReader } from './subscription-home.ts'

/** A row of a stream; without its JSON if that is large, to be read by id. */
interface ViewRow {
  readonly id: Id
  readonly json: string | null
}

/** A class whose read takes this long stays out of the way of others. */
const SLOW_MS = 2_000
/** And one whose read takes no longer than this is as good as any. */
const QUICK_MS = 250

/** What one round trip of a snapshot should bring. Two of them are in memory at a time. */
const FETCH_CHARACTERS = 512 * 1024
/** What it may bring at most is this many rows of {@link STREAMED_ROW_CHARACTERS_MAX}, whatever was seen before. */
const FETCH_ROWS_MAX = 500
/** What one read by id may bring. */
const READ_CHARACTERS = 2 * 1024 * 1024
/** One more than allowed, so that too many can be told from just enough. */
const ROWS_LIMIT = ROWS_PER_SUBSCRIPTION_MAX + 1

/** A read failed with an SQLSTATE that says: try again. */
class Unread extends Error {
  constructor(readonly code: string) {
    super(`a read failed (${code})`)
  }
}

export interface ViewReaderParts {
  readonly database: Database
  readonly gates: ReadGates
  readonly table: Table
  readonly rowSize: RowSize
  /** Told of classes whose reads are slow, and of slow ones whose reads are quick again. */
  readonly slowClasses: SlowClasses
}

export function createViewReader(parts: ViewReaderParts): ViewReader {
  const { database, gates, table, rowSize, slowClasses } = parts
  /** A transaction of one subscription. What it waits for a place is not counted against it. */
  const readAs = <T>(
    { class: { key, settings }, subscriber }: ReadFor,
    work: (transaction: TransactionSql, source: ReadSource) => Promise<T>,
    isOfNow: boolean,
  ): Promise<T> =>
    gates.run(
      subscriber,
      {
        key: `${table.oid} ${key}`,
        isSlow: () => slowClasses.has(key),
        noteSlow: () => slowClasses.note(key),
      },
      async (time) => {
        // A view that opens, moves or gets other claims has all that was committed before, announced or not.
        if (isOfNow) await database.reads.reachNow()
        return database.reads
          .run((source) =>
            asPrincipal(
              source.bulk,
              { settings, access: 'read only', ...time, proof: source.proof },
              (transaction) => work(transaction, source),
            ),
          )
          .catch(explain)
      },
    )

  /**
   * A statement that failed may have been made for columns that the table no longer has; and where the schema `datum` cannot
   * be used either, nothing can be told of the policies.
   */
  const explain = async (error: unknown): Promise<never> => {
    const code = errorCode(error)
    if (isSqlState(code) && !isUnavailable(error)) {
      const [row] = await database.bulk<{ fingerprint: string }[]>`
        select datum.fingerprint(${table.oid}) as fingerprint`.catch(throwWithoutSchema)
      if (row !== undefined && row.fingerprint !== table.fingerprint) throw new TableChanged()
    }
    throw error
  }

  /** Watches how long the policies of a class take to answer. */
  const timed = async <T>({ class: { key } }: ReadFor, answer: () => Promise<T>): Promise<T> => {
    const timer = setTimeout(() => slowClasses.note(key), SLOW_MS)
    const startedAt = performance.now()
    try {
      const result = await answer()
      if (performance.now() - startedAt < QUICK_MS) slowClasses.forget(key)
      return result
    } finally {
      clearTimeout(timer)
    }
  }

  const checkTable = async (sql: TransactionSql) => {
    // The read has locked the table against DDL; what it was planned with is what the catalog says now.
    const [row] = await sql<{ fingerprint: string }[]>`select datum.fingerprint(${table.oid}) as fingerprint`
    if (row?.fingerprint !== table.fingerprint) throw new TableChanged()
  }
  return {
    ids: (reader, bbox) =>
      readAs(
        reader,
        async (transaction) => {
          const rows = await timed(reader, () =>
            transaction.unsafe<{ id: Id }[]>(viewIdsSql(table, bbox, ROWS_LIMIT)),
          )
          await checkTable(transaction)
          return rows.map(({ id }) => id)
        },
        true,
      ),

    rows: (reader, ids) =>
      readAs(
        reader,
        async (transaction, source) => {
          const classes = [{ settings: reader.class.settings, ids }]
          const limits = { timeoutMs: null, lengthMax: READ_CHARACTERS }
          const answer = await timed(reader, () => readForClasses(transaction, table, classes, limits))
          insistOn(source, answer, table)
          const { results, fingerprint } = answer
          if (fingerprint !== table.fingerprint) throw new TableChanged()
          const [result = { rows: [], unread: [] }] = results
          if ('rows' in result) rowSize.saw(result.rows)
          // A lock that was not given up, a deadlock: as if the statement had raised it, and not the policies.
          else if (isUnavailable({ code: result.error })) throw new Unread(result.error)
          return result
        },
        false,
      ),

    stream: (reader, bbox, take) =>
      readAs(
        reader,
        async (transaction) => {
          // Planned for reading all of it, which is what happens unless the socket is slow.
          await transaction.unsafe('set local cursor_tuple_fraction = 1')
          await transaction.unsafe(
            `declare datum_view no scroll cursor for ${viewRowsSql(table, bbox, ROWS_LIMIT)}`,
          )
          const fetch = () =>
            transaction.unsafe<ViewRow[]>(
              `fetch ${Math.min(rowSize.rowsIn(FETCH_CHARACTERS), FETCH_ROWS_MAX)} from datum_view`,
            )
          let rows: ViewRow[] = await timed(reader, fetch)
          await checkTable(transaction)
          while (rows.length > 0) {
            rowSize.saw(rows.filter(hasJson))
            // Postgres produces the next run while this one is sent.
            const next = fetch().execute().catch(interrupted)
            const [goOn, following] = await Promise.all([take(rows), next])
            if (!goOn) return
            rows = following
          }
        },
        true,
      ),
  }
}

/**
 * Out of time with a part of the view sent: to be gone on with by comparing, not from the beginning. Said as Postgres says
 * that something is to be tried again (SQLSTATE serialization_failure).
 */
function interrupted(error: unknown): never {
  if (errorCode(error) !== QUERY_CANCELLED) throw error
  throw Object.assign(new Error('the view was not read to its end'), { code: '40001' })
}

function hasJson(row: ViewRow): row is ViewRow & { readonly json: string } {
  return row.json !== null
}
