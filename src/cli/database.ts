/** Opens the database of a command, and puts into words why it cannot be used. */
import type { Config } from '../config/config.ts'
import { redactUrl } from '../config/redact-url.ts'
import type { Database } from '../db/database.ts'
import type { Log } from '../observe/log.ts'
import { OperatorError } from '../operator-error.ts'

/** The Postgres that the configuration names, or the embedded one. */
export async function openDatabase(config: Config, log: Log): Promise<Database> {
  if (config.databaseUrl !== null) {
    const { openPostgres } = await import('../db/postgres.ts')
    return openPostgres(config.databaseUrl, log, config.databaseReadUrl)
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
): Promise<T> {
  const database = await openDatabase(config, log)
  try {
    return await work(database)
  } catch (error) {
    throw explainFailure(error, config.databaseUrl)
  } finally {
    await database.close().catch(() => {})
  }
}

/** SQLSTATEs and socket errors of a connection that did not come about, with the words for each. */
const CONNECTION_FAILURES: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOTFOUND: 'there is no such host',
  EAI_AGAIN: 'the name of the host cannot be resolved now',
  EHOSTUNREACH: 'the host cannot be reached',
  ETIMEDOUT: 'the host does not answer',
  CONNECT_TIMEOUT: 'the host does not answer',
  CONNECTION_CLOSED: 'the connection was closed',
  ECONNRESET: 'the connection was closed',
  '28P01': 'the password is wrong',
  '28000': 'this role may not connect',
  '3D000': 'there is no such database',
  '53300': 'it has no connections left',
  '57P03': 'it is starting up or shutting down',
}

/** An OperatorError for a database that is away or closed to this role; any other error as it is. */
export function explainFailure(error: unknown, databaseUrl: string | null): unknown {
  const { code } = error as { readonly code?: unknown }
  const words =
    typeof code === 'string' && Object.hasOwn(CONNECTION_FAILURES, code) ? CONNECTION_FAILURES[code] : null
  if (words == null || databaseUrl === null) return error
  return new OperatorError(`No connection to ${redactUrl(databaseUrl)}: ${words}.`)
}
