/** The database of one test: fresh on a real cluster, shared and swept on the embedded one. */
import type { Sql } from 'postgres'
import type { Database } from '../../src/db/database.ts'
import { install } from '../../src/db/install.ts'
import { openPostgres } from '../../src/db/postgres.ts'
import { createLog } from '../../src/observe/log.ts'
import { backend } from './backend.ts'
import { APP_ROLE, quietSql } from './postgres.ts'
import { type TableSpec, tableConfig } from './table-spec.ts'

export interface WorldDatabase {
  readonly kind: 'postgres' | 'embedded'
  /** A superuser's connection: what it writes is what "the application" writes. */
  readonly admin: Sql
  /** URL of the database for `datum_app`; null on the embedded one, which has no address. */
  readonly appUrl: string | null
  /** URL of the database for a superuser; null on the embedded one. */
  readonly adminUrl: string | null
  /** Opens the database as a server does; the embedded one is always the same. */
  openDatabase(): Database
  /** Closes what {@link openDatabase} opened and gives the database back. */
  drop(): Promise<void>
}

let embeddedInUse = false

/** Drops what a test made in `public` beside its tables: functions, enums and domains that belong to no extension. */
const DROP_FUNCTIONS_AND_TYPES = `
  do $$
  declare
    statement text;
    -- All are named before any is dropped: a cascade may take the next one, which then has a number for a name.
    statements text[] := array(
      select format('drop routine if exists %s cascade', oid::regprocedure) from pg_proc p
      where pronamespace = 'public'::regnamespace and not exists (
        select from pg_depend where classid = 'pg_proc'::regclass and objid = p.oid and deptype = 'e')
      union all
      select format('drop type if exists %s cascade', oid::regtype) from pg_type t
      where typnamespace = 'public'::regnamespace and typtype in ('e', 'd') and not exists (
        select from pg_depend where classid = 'pg_type'::regclass and objid = t.oid and deptype = 'e'));
  begin
    foreach statement in array statements loop
      execute statement;
    end loop;
  end
  $$`

export async function openWorldDatabase(tables: readonly TableSpec[]): Promise<WorldDatabase> {
  const running = await backend()
  if (running.kind === 'embedded') {
    // There is one embedded database, so two worlds at a time would share its tables.
    if (embeddedInUse) throw new Error('another world is open: close it first')
    embeddedInUse = true
    const sweep = async () => {
      for (const { name } of tables) await running.sql.unsafe(`drop table if exists ${name} cascade`)
      await running.sql.unsafe(DROP_FUNCTIONS_AND_TYPES)
    }
    await sweep()
    return {
      kind: 'embedded',
      admin: running.sql,
      appUrl: null,
      adminUrl: null,
      openDatabase: () => running.database,
      async drop() {
        embeddedInUse = false
        await sweep()
      },
    }
  }
  const { cluster } = running
  const name = await cluster.createDatabase()
  const admin = quietSql(cluster.adminUrl(name))
  const opened: Database[] = []
  return {
    kind: 'postgres',
    admin,
    appUrl: cluster.appUrl(name),
    adminUrl: cluster.adminUrl(name),
    openDatabase() {
      const database = openPostgres(cluster.appUrl(name), createLog('error'))
      opened.push(database)
      return database
    },
    async drop() {
      await Promise.all(opened.map((database) => database.close()))
      await admin.end({ timeout: 1 })
      await cluster.dropDatabase(name)
    },
  }
}

/** Makes the tables, installs datum unless told not to, then the policies: the order of somebody who adopts datum. */
export async function makeTables(
  admin: Sql,
  tables: readonly TableSpec[],
  options: { before: string; installed: boolean },
): Promise<void> {
  if (options.before) await admin.unsafe(options.before)
  for (const table of tables) {
    await admin.unsafe(table.sql)
    await admin.unsafe(`grant select, insert, update, delete on ${table.name} to ${APP_ROLE}`)
  }
  await admin.unsafe(`grant usage, select on all sequences in schema public to ${APP_ROLE}`)
  if (options.installed) await install(admin, { tables: tables.map(tableConfig), role: APP_ROLE })
  for (const table of tables) await admin.unsafe(table.policies)
}
