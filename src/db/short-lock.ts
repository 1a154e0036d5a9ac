/**
 * A transaction that changes tables in use: it waits for a lock only so briefly that the application's writes, which
 * queue up behind it, do not notice, and begins again later if it did not get one. For `setup` and its removal.
 */
import type { Sql, TransactionSql } from 'postgres'
import { OperatorError } from '../operator-error.ts'

/**
 * What waits for a lock makes everybody wait who comes after. Below Postgres's `deadlock_timeout` of a second, so that in
 * a deadlock it is this transaction that gives up and never one of the application.
 */
const LOCK_TIMEOUT_MS = 500
/** How often, and with what pauses in between: half a minute in all. */
const ATTEMPTS_MAX = 20
const PAUSE_MS = 1_000
/** For another `setup` to end, which holds up nobody else. */
const TURN_TIMEOUT = '60s'

/** "datumset" as a number: one `setup` at a time. */
const LOCK_KEY = '7233190524230001012'

/** Runs a statement and notes it down. */
export type RunStatement = (text: string) => Promise<void>
type Work = (transaction: TransactionSql, run: RunStatement) => Promise<void>

/** Runs `work` in a transaction. Rejects with an {@link OperatorError} if a lock could not be had; then nothing was changed. */
export async function shortLockTransaction(sql: Sql, work: Work): Promise<void> {
  await attempts(sql, work, false)
}

/** The SQL that {@link shortLockTransaction} would run, made by running it and rolling back. */
export function shortLockTransactionSql(sql: Sql, work: Work): Promise<string> {
  return attempts(sql, work, true)
}

async function attempts(sql: Sql, work: Work, onlyPrint: boolean): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await inTransaction(sql, work, onlyPrint)
    } catch (error) {
      // lock_not_available, deadlock_detected
      const { code } = error as { code?: string }
      if (code !== '55P03' && code !== '40P01') throw error
      if (attempt === ATTEMPTS_MAX) {
        throw new OperatorError(
          `A table was locked by running transactions, ${ATTEMPTS_MAX} times over; nothing was changed. Try again when they have ended (pg_stat_activity shows them).`,
        )
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
    }
  }
}

class Rollback extends Error {}

async function inTransaction(sql: Sql, work: Work, onlyPrint: boolean): Promise<string> {
  const statements: string[] = []
  try {
    await sql.begin(async (transaction) => {
      const run = async (text: string) => {
        statements.push(text.trim())
        await transaction.unsafe(text)
      }
      // Whoever runs this may be a superuser: a function or an operator that somebody made in `public` must not be taken
      // for the built-in one.
      await run('set local search_path = pg_catalog, pg_temp')
      await run(`set local lock_timeout = '${TURN_TIMEOUT}'`)
      await run(`select pg_advisory_xact_lock(${LOCK_KEY})`)
      await run(`set local lock_timeout = '${LOCK_TIMEOUT_MS}ms'`)
      await work(transaction, run)
      if (onlyPrint) throw new Rollback()
    })
  } catch (error) {
    if (!(error instanceof Rollback)) throw error
  }
  return `begin;\n${statements.map((text) => text.replace(/;?$/, ';')).join('\n\n')}\ncommit;\n`
}
