/** Opens the database of a command, and puts into words why it cannot be used. */
import type { Config } from '../config/config.ts'
import { redactUrl } from '../config/redact-url.ts'
import { connectionFailure } from '../db/connection-failure.ts'
import type { Database } from '../db/database.ts'
import { errorCode, isUnavailable } from '../db/error-code.ts'
import type { Log } from '../observe/log.ts'
import { OperatorError } from '../operator-error.ts'

interface DatabaseUse {
  /** It waits for a statement as long as it takes. Default false: a server's statements all have limits. */
  readonly isPatient?: boolean
}

/** The Postgres that the configuration names, or the embedded one. */
export async function openDatabase(config: Config, log: Log, use: DatabaseUse = {}): Promise<Database> {
  if (config.databaseUrl !== null) {
    const { openPostgres } = await import('../db/postgres.ts')
    return openPostgres(config.databaseUrl, log, {
      readUrl: config.databaseReadUrl ?? null,
      ...(use.isPatient === true && { answerSeconds: null }),
    })
  }
  const { dataDir, initSql } = config.embedded
  log.info(`No database URL (-db or DATABASE_URL): using the embedded Postgres. Its data are in ${dataDir}`)
  const { openEmbedded } = await import('../db/embedded.ts')
  return openEmbedded({ dataDir, initSql, log })
}

/** Opens the database, does `work` with it, closes it whatever happens. Failures to connect are explained. */
export async function withDatabase<T>(
  config: Config,
  log: Log,
  work: (database: Database) => Promise<T>,
  use: DatabaseUse = {},
): Promise<T> {
  const database = await openDatabase(config, log, use)
  try {
    return await work(database)
  } catch (error) {
    throw explainFailure(error, config.databaseUrl)
  } finally {
    await database.close().catch(() => {})
  }
}

/** As {@link withDatabase}, for statements that may take as long as they like: an index of a large log, say. */
export function withPatientDatabase<T>(
  config: Config,
  log: Log,
  work: (database: Database) => Promise<T>,
): Promise<T> {
  return withDatabase(config, log, work, { isPatient: true })
}

/** An OperatorError for a database that is away, busy or closed to this role; any other error as it is. */
export function explainFailure(error: unknown, databaseUrl: string | null): unknown {
  if (databaseUrl === null) return error
  const code = errorCode(error)
  const failure = connectionFailure(code)
  if (failure !== null) return new OperatorError(`No connection to ${redactUrl(databaseUrl)}: ${failure}.`)
  if (!isUnavailable(error)) return error
  // A deadlock with somebody's ALTER TABLE, a lock that was not given up, a shutdown in the middle of a statement.
  return new OperatorError(
    `Postgres at ${redactUrl(databaseUrl)} could not answer at the moment (${code}). Try again.`,
  )
}
