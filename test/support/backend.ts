/**
 * Which Postgres the tests of this process run on: a real cluster (`postgres.ts`) or the embedded one. Decided once,
 * printed once, shared by all test files through `globalThis`, since each file may have its own copy of this module.
 *
 * `DATUM_TEST_DB=postgres|embedded|auto` chooses; `DATUM_TEST_DATABASE_URL` (a superuser's) uses a running server.
 */
import type { Sql } from 'postgres'
import type { Database } from '../../src/db/database.ts'
import { createLog } from '../../src/observe/log.ts'
import { ownerSql } from './embedded-admin.ts'
import { APP_ROLE, type Cluster, findPostgresBinaries, openCluster, startCluster } from './postgres.ts'

type Backend =
  | { readonly kind: 'postgres'; readonly cluster: Cluster }
  | { readonly kind: 'embedded'; readonly database: Database /** As the owner. */; readonly sql: Sql }

interface Shared {
  kind?: Promise<BackendChoice>
  backend?: Promise<Backend>
}
type BackendChoice =
  | { kind: 'embedded' }
  | { kind: 'postgres'; url: string }
  | { kind: 'postgres'; binaries: string }

const KEY: unique symbol = Symbol.for('datum.test.backend')
const holder = globalThis as { [KEY]?: Shared }
holder[KEY] ??= {}
const shared = holder[KEY]

/** The Postgres of this run, started if this is the first to ask. */
export function backend(): Promise<Backend> {
  shared.backend ??= start()
  return shared.backend
}

/** `postgres` or `embedded`, without starting either: for tests that only one of them can run. */
export async function backendKind(): Promise<Backend['kind']> {
  return (await choice()).kind
}

/** Takes down what this process started. Called once, by the preload. */
export async function stopBackend(): Promise<void> {
  const running = await shared.backend?.catch(() => null)
  if (!running) return
  if (running.kind === 'postgres') await running.cluster.stop()
  else await running.database.close()
}

function choice(): Promise<BackendChoice> {
  shared.kind ??= choose()
  return shared.kind
}

async function choose(): Promise<BackendChoice> {
  const wanted = process.env.DATUM_TEST_DB ?? 'auto'
  const url = process.env.DATUM_TEST_DATABASE_URL
  if (wanted === 'embedded') return { kind: 'embedded' }
  if (wanted !== 'auto' && wanted !== 'postgres')
    throw new Error(`DATUM_TEST_DB is ${wanted}; it must be postgres, embedded or auto`)
  if (url) return { kind: 'postgres', url }
  const binaries = await findPostgresBinaries()
  if (binaries) return { kind: 'postgres', binaries }
  if (wanted === 'postgres')
    throw new Error('DATUM_TEST_DB is postgres, but no PostgreSQL with PostGIS is here')
  return { kind: 'embedded' }
}

async function start(): Promise<Backend> {
  const chosen = await choice()
  if (chosen.kind === 'embedded') {
    process.stderr.write('tests run on: the embedded Postgres (PGlite with PostGIS)\n')
    // Imported here so that a run on real Postgres does not load PGlite.
    const { openEmbedded } = await import('../../src/db/embedded.ts')
    const database = await openEmbedded({
      dataDir: null,
      initSql: 'select 1',
      role: APP_ROLE,
      log: createLog('error'),
    })
    return { kind: 'embedded', database, sql: ownerSql(database) }
  }
  const where = 'url' in chosen ? 'DATUM_TEST_DATABASE_URL' : chosen.binaries
  process.stderr.write(`tests run on: real PostgreSQL with PostGIS (${where})\n`)
  const cluster = 'url' in chosen ? await openCluster(chosen.url) : await startCluster(chosen.binaries)
  return { kind: 'postgres', cluster }
}
