/** The database side of a subscription that catches up: one principal class at a time, from its own transaction. */
import type { TransactionSql } from 'postgres'
import { asPrincipal, readForClasses } from '../db/as-principal.ts'
import type { Table } from '../db/catalog.ts'
import type { Database } from '../db/database.ts'
import { isUnavailable } from '../db/error-code.ts'
import { ROWS_PER_SUBSCRIPTION_MAX } from '../wire/limits.ts'
import type { Id } from '../wire/messages.ts'
import type { FairGate } from './fair-gate.ts'
import { rowsByIdSql, viewIdsSql, viewRowsSql } from './read-sql.ts'
import type { RowSize } from './row-size.ts'
import { type ReadFor, TableChanged, type ViewReader } from './subscription.ts'

/** A row of a stream; without its JSON if that is large, to be read by id. */
interface ViewRow {
  readonly id: Id
  readonly json: string | null
}

/** How long one statement for one subscription may take. Then the subscription ends with `timeout`. */
const READ_TIMEOUT_MS = 15_000
/** How long of that it may wait for a lock on the table. Then it is tried again: a lock is not its policies' fault. */
const LOCK_TIMEOUT_MS = 5_000

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

/** `gate`: so many at a time, and fewer of one socket. */
export function createViewReader(
  database: Database,
  gate: FairGate,
  table: Table,
  rowSize: RowSize,
): ViewReader {
  /** A transaction of one subscription. What it waits for a place is not counted against it. */
  const readAs = <T>(
    { class: { settings }, subscriber }: ReadFor,
    work: (transaction: TransactionSql) => Promise<T>,
  ): Promise<T> =>
    gate.run(subscriber, () =>
      asPrincipal(
        database.bulk,
        { settings, access: 'read only', timeoutMs: READ_TIMEOUT_MS, lockTimeoutMs: LOCK_TIMEOUT_MS },
        work,
      ),
    )

  const checkTable = async (sql: TransactionSql) => {
    // The read has locked the table against DDL; what it was planned with is what the catalog says now.
    const [row] = await sql<{ fingerprint: string }[]>`select datum.fingerprint(${table.oid}) as fingerprint`
    if (row?.fingerprint !== table.fingerprint) throw new TableChanged()
  }
  return {
    ids: (reader, bbox) =>
      readAs(reader, async (transaction) => {
        const rows = await transaction.unsafe<{ id: Id }[]>(viewIdsSql(table, bbox, ROWS_LIMIT))
        await checkTable(transaction)
        return rows.map(({ id }) => id)
      }),

    rows: (reader, ids) =>
      readAs(reader, async (transaction) => {
        const classes = [{ settings: reader.class.settings, ids }]
        const query = rowsByIdSql(table)
        const limits = { timeoutMs: null, lengthMax: READ_CHARACTERS }
        const { results, fingerprint } = await readForClasses(transaction, classes, query, table.oid, limits)
        if (fingerprint !== table.fingerprint) throw new TableChanged()
        const [result = { rows: [], unread: [] }] = results
        if ('rows' in result) rowSize.saw(result.rows)
        // A lock that was not given up, a deadlock: as if the statement had raised it, and not the policies.
        else if (isUnavailable({ code: result.error })) throw new Unread(result.error)
        return result
      }),

    stream: (reader, bbox, take) =>
      readAs(reader, async (transaction) => {
        // Planned for reading all of it, which is what happens unless the socket is slow.
        await transaction.unsafe('set local cursor_tuple_fraction = 1')
        await transaction.unsafe(
          `declare datum_view no scroll cursor for ${viewRowsSql(table, bbox, ROWS_LIMIT)}`,
        )
        const fetch = () =>
          transaction.unsafe<ViewRow[]>(
            `fetch ${Math.min(rowSize.rowsIn(FETCH_CHARACTERS), FETCH_ROWS_MAX)} from datum_view`,
          )
        let rows: ViewRow[] = await fetch()
        await checkTable(transaction)
        while (rows.length > 0) {
          rowSize.saw(rows.filter(hasJson))
          // Postgres produces the next run while this one is sent.
          const next = fetch().execute()
          const [goOn, following] = await Promise.all([take(rows), next])
          if (!goOn) return
          rows = following
        }
      }),
  }
}

function hasJson(row: ViewRow): row is ViewRow & { readonly json: string } {
  return row.json !== null
}
