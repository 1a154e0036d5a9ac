/**
 * Installs and upgrades what live sync needs in a database: the schema `datum` (sql/schema.sql), the triggers of the
 * served tables (triggers.ts), and the rights of the server's role. Safe to run again at any time.
 */
import type { Sql, TransactionSql } from 'postgres'
import type { TableConfig } from '../config/config.ts'
import { OperatorError } from '../operator-error.ts'
import { readTable, type Table } from './catalog.ts'
import { quoteIdentifier, quoteLiteral } from './identifier.ts'
import schemaSql from './sql/schema.sql' with { type: 'text' }
import { TRIGGER_PREFIX, triggerSql } from './triggers.ts'

/** Grows with every change of sql/schema.sql or triggers.ts. A server refuses to run on another version than its own. */
export const SCHEMA_VERSION = 1

/** Oldest Postgres that has everything schema.sql uses (SQL-standard function bodies, OR REPLACE for triggers). */
const POSTGRES_VERSION_MIN = 140000

/** CREATE TRIGGER waits for running writes and makes new ones wait meanwhile, so it may not queue for long. */
const LOCK_TIMEOUT = '5s'

const ROLE_FUNCTIONS = [
  'fingerprint(oid)',
  'read_as(jsonb, text, oid, bigint)',
  'candidates(regclass, POSTGIS.geometry[])',
  'epoch()',
  'begin_batch(text, uuid)',
  'finish_batch(text, uuid, json)',
  'refresh(regclass)',
  'prune(interval, interval)',
]

export interface InstallOptions {
  readonly tables: readonly TableConfig[]
  /** The role that servers connect as; null: the one that installs is the one that serves. */
  readonly role: string | null
}

/** Installs in one transaction. Rejects with an {@link OperatorError} that says what to do; then nothing was changed. */
export async function install(sql: Sql, options: InstallOptions): Promise<void> {
  await inTransaction(sql, options, false)
}

/** The SQL that {@link install} would run, made by running it and rolling back. */
export function installSql(sql: Sql, options: InstallOptions): Promise<string> {
  return inTransaction(sql, options, true)
}

class Rollback extends Error {}

async function inTransaction(sql: Sql, options: InstallOptions, onlyPrint: boolean): Promise<string> {
  const statements: string[] = []
  try {
    await sql.begin(async (transaction) => {
      const run = async (text: string) => {
        statements.push(text.trim())
        await transaction.unsafe(text)
      }
      await run(`set local lock_timeout = '${LOCK_TIMEOUT}'`)
      await installSchema(transaction, run)
      for (const config of options.tables) {
        const table = await readTable(transaction as unknown as Sql, config)
        await run(triggerSql(table, await installerOf(transaction)))
        await run(watchSql(table))
      }
      if (options.role !== null) await grant(transaction, options.role, run)
      await run(
        `insert into datum.meta (version) values (${SCHEMA_VERSION}) on conflict (single) do update set version = excluded.version`,
      )
      if (onlyPrint) throw new Rollback()
    })
  } catch (error) {
    if (!(error instanceof Rollback)) throw explained(error)
  }
  return `begin;\n${statements.map((text) => text.replace(/;?$/, ';')).join('\n\n')}\ncommit;\n`
}

async function installSchema(
  transaction: TransactionSql,
  run: (text: string) => Promise<void>,
): Promise<void> {
  const [server] = await transaction<{ version: number; postgis: string | null }[]>`
    select current_setting('server_version_num')::int as version,
           (select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
             where e.extname = 'postgis') as postgis`
  if (server === undefined || server.version < POSTGRES_VERSION_MIN) {
    throw new OperatorError('datum-server needs PostgreSQL 14 or later.')
  }
  if (server.postgis === null) {
    throw new OperatorError(
      'This database has no PostGIS. Run `CREATE EXTENSION postgis` as a superuser, then try again.',
    )
  }
  await refuseNewerVersion(transaction)
  await run(schemaSql.replaceAll('{postgis}', quoteIdentifier(server.postgis)))
}

async function installerOf(transaction: TransactionSql): Promise<{ role: string; superuser: boolean }> {
  const [row] = await transaction<{ role: string; superuser: boolean }[]>`
    select rolname as role, rolsuper as superuser from pg_roles where rolname = current_user`
  return row ?? { role: '', superuser: false }
}

function watchSql({ qualified, id, geometry }: Table): string {
  const values = [qualified, id.column, ...(geometry === null ? [] : [geometry.column.name])].map(
    quoteLiteral,
  )
  if (geometry === null) values.push('null')
  return `insert into datum.watched (rel, id_column, geometry_column) values (${values.join(', ')})
on conflict (rel) do update set id_column = excluded.id_column, geometry_column = excluded.geometry_column`
}

async function refuseNewerVersion(transaction: TransactionSql): Promise<void> {
  const [exists] = await transaction`select to_regclass('datum.meta') is not null as installed`
  if (!exists?.installed) return
  const [meta] = await transaction<{ version: number }[]>`select version from datum.meta`
  if (meta !== undefined && meta.version > SCHEMA_VERSION) {
    throw new OperatorError(
      `This database was set up by a newer datum-server (schema version ${meta.version}, this one knows ${SCHEMA_VERSION}). Upgrade this server.`,
    )
  }
}

async function grant(
  transaction: TransactionSql,
  role: string,
  run: (text: string) => Promise<void>,
): Promise<void> {
  const [found] = await transaction`select 1 from pg_roles where rolname = ${role}`
  if (found === undefined) {
    throw new OperatorError(
      `There is no role ${role}. Create it first: CREATE ROLE ${quoteIdentifier(role)} LOGIN PASSWORD ${quoteLiteral('your-password')};`,
    )
  }
  const [location] = await transaction<{ postgis: string }[]>`
    select n.nspname as postgis from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'postgis'`
  const postgis = quoteIdentifier(location?.postgis ?? 'public')
  const functions = ROLE_FUNCTIONS.map((name) => `datum.${name.replace('POSTGIS', postgis)}`).join(', ')
  await run(`grant select on datum.meta, datum.change, datum.watched to ${quoteIdentifier(role)};
grant execute on function ${functions} to ${quoteIdentifier(role)}`)
}

/** What stands between the database as it is and a server that wants to serve these tables. */
export type InstallState =
  | { readonly state: 'ready' }
  | { readonly state: 'absent' | 'outdated' | 'incomplete'; readonly problem: string }
  | { readonly state: 'newer'; readonly problem: string }

/** Looks, as the server's role, whether everything is there and this role may use it. */
export async function installState(sql: Sql, tables: readonly TableConfig[]): Promise<InstallState> {
  const [schema] = await sql`
    select to_regclass('datum.meta') is not null as installed,
           coalesce(has_table_privilege(to_regclass('datum.meta'), 'select'), false)
             and coalesce(has_table_privilege(to_regclass('datum.change'), 'select'), false)
             and coalesce(has_function_privilege(to_regprocedure('datum.read_as(jsonb, text, oid, bigint)'), 'execute'), false)
             as allowed`
  if (!schema?.installed)
    return { state: 'absent', problem: 'the schema `datum` is not installed in this database' }
  if (!schema.allowed)
    return { state: 'incomplete', problem: 'this role may not use what is installed in the schema `datum`' }
  const [meta] = await sql<{ version: number }[]>`select version from datum.meta`
  const version = meta?.version ?? 0
  if (version < SCHEMA_VERSION)
    return {
      state: 'outdated',
      problem: `the schema \`datum\` has version ${version}, this server needs ${SCHEMA_VERSION}`,
    }
  if (version > SCHEMA_VERSION)
    return {
      state: 'newer',
      problem: `the schema \`datum\` has version ${version}, newer than the ${SCHEMA_VERSION} of this server. Upgrade datum-server`,
    }
  for (const table of tables) {
    const problem = await watchProblem(sql, table)
    if (problem !== null)
      return { state: 'incomplete', problem: `the table ${table.schema}.${table.name} ${problem}` }
  }
  return { state: 'ready' }
}

/** What is missing for the changes of a table to be seen; null: nothing, or the table itself, which others will notice. */
export async function watchProblem(
  sql: Sql,
  { schema, name, idColumn, geometryColumn }: TableConfig,
): Promise<string | null> {
  const [table] = await sql<{ triggers: number; id_column: string | null; geometry_column: string | null }[]>`
    select (select count(*)::int from pg_trigger t
             where t.tgrelid = c.oid and t.tgenabled <> 'D' and starts_with(t.tgname, ${TRIGGER_PREFIX})) as triggers,
           w.id_column, w.geometry_column
      from pg_class c join pg_namespace n on n.oid = c.relnamespace left join datum.watched w on w.rel = c.oid
     where n.nspname = ${schema} and c.relname = ${name}`
  if (table === undefined) return null
  if (table.triggers < 4 || table.id_column === null) return 'has no change triggers'
  const isAsConfigured =
    table.id_column === idColumn && (geometryColumn === null || table.geometry_column === geometryColumn)
  return isAsConfigured ? null : 'was set up with other columns'
}

/** Partitions that were made after the set-up: what is written straight into them is not seen. Quoted. */
export async function unwatchedPartitions(sql: Sql, { schema, name }: TableConfig): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    select tree.relid::regclass::text as name
      from pg_class c join pg_namespace n on n.oid = c.relnamespace, lateral pg_partition_tree(c.oid) tree
     where n.nspname = ${schema} and c.relname = ${name} and tree.level > 0
       and (select count(*) from pg_trigger t
             where t.tgrelid = tree.relid and t.tgenabled <> 'D' and starts_with(t.tgname, ${TRIGGER_PREFIX})) < 4`
  return rows.map((row) => row.name)
}

function explained(error: unknown): unknown {
  const code = (error as { code?: string }).code
  if (code === '42501') {
    return new OperatorError(
      "This role may not install what live sync needs. Run `datum-server setup` with the URL of the tables' owner (or a superuser).",
    )
  }
  if (code === '55P03') {
    return new OperatorError(
      `A table was locked by a running transaction for more than ${LOCK_TIMEOUT}; nothing was changed. Try again when it has ended.`,
    )
  }
  return error
}
