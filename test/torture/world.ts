/** What all actors share: the database, the servers, the log of events, and what is allowed at the moment. */
import postgres, { type Sql } from 'postgres'
import { install } from '../../src/db/install.ts'
import { APP_ROLE } from '../support/postgres.ts'
import { type RestartableCluster, startRestartableCluster } from './cluster.ts'
import { CursorChecker } from './cursor-checker.ts'
import { EditBook } from './edit-book.ts'
import type { History } from './history.ts'
import { POLICIES_SQL, type Policy, TABLES_SQL } from './model.ts'
import { type ServerSlot, startServers } from './servers.ts'

export interface TortureWorld extends AsyncDisposable {
  readonly cluster: RestartableCluster
  readonly servers: readonly ServerSlot[]
  /** A superuser's: the application. Its statements fail while Postgres is away. */
  readonly sql: Sql
  /** One more connection of the same kind. The caller ends it. */
  connect(): Sql
  readonly history: History
  readonly book: EditBook
  readonly cursors: CursorChecker
  /** Policies that may be in force: both while one is being replaced by the other. */
  readonly policies: Set<Policy>
}

const SERVERS = 2
const TABLES = [
  { schema: 'public', name: 'features', idColumn: 'id', geometryColumn: 'geom' },
  { schema: 'public', name: 'notes', idColumn: 'id', geometryColumn: null },
]

export async function createTortureWorld(history: History): Promise<TortureWorld> {
  const cluster = await startRestartableCluster()
  try {
    const name = await cluster.createDatabase()
    // Asking for types on each new connection is something that postgres.js does not survive the loss of.
    const connect = (max: number) =>
      postgres(cluster.adminUrl(name), { max, fetch_types: false, onnotice: () => {} })
    const sql = connect(8)
    await sql.unsafe(TABLES_SQL)
    await install(sql, { tables: TABLES, role: APP_ROLE })
    await sql.unsafe(POLICIES_SQL)
    const servers = await startServers(SERVERS, cluster.appUrl(name), history)
    return {
      cluster,
      servers: servers.slots,
      sql,
      connect: () => connect(1),
      history,
      book: new EditBook(history),
      cursors: new CursorChecker(history),
      policies: new Set<Policy>(['open']),
      async [Symbol.asyncDispose]() {
        await servers[Symbol.asyncDispose]()
        await sql.end({ timeout: 1 })
        if (history.violations.length > 0)
          for (const line of (await cluster.log()).split('\n').filter(isTelling)) history.note('log', line)
        await cluster.stop()
      },
    }
  } catch (error) {
    await cluster.stop()
    throw error
  }
}

/** Lines of Postgres's log that may explain what was broken, once the rest of it is gone. */
const isTelling = (line: string) => /ERROR|DETAIL|STATEMENT|FATAL|PANIC|^\tProcess/.test(line)

/** Runs a number of random steps, one after the other. Actors run side by side. */
export interface Actor {
  readonly name: string
  act(steps: number): Promise<void>
}
