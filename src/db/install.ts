/**
 * Installs and upgrades what live sync needs in a database: the schema `datum` (sql/schema.sql), the triggers of the
 * served tables (triggers.ts), and the rights of the server's role. Safe to run again at any time.
 */
import type { Sql, TransactionSql } from 'postgres'
import type { TableConfig } from '../config/config.ts'
import { OperatorError } from '../operator-error.ts'
import { readTable, type Table } from './catalog.ts'
import { RING_BODY_SQL } from './doorbell.ts'
import { quoteIdentifier, quoteLiteral } from './identifier.ts'
import { INDEX_ROLE, indexRoleSql } from './index-role.ts'
import { READ_FUNCTION_ARGUMENTS, readDigest, readFunctionName, readFunctionSql } from './read-function.ts'
import { foreignSchema, refuseForeignSchema } from './schema-owner.ts'
import { OLDEST_SERVER, SCHEMA_VERSION, schemaFitness } from './schema-version.ts'
import { type RunStatement, shortLockTransaction, shortLockTransactionSql } from './short-lock.ts'
import schemaSql from './sql/schema.sql' with { type: 'text' }
import { relationsWithTriggers, TRIGGER_PREFIX, triggerSql } from './triggers.ts'

/** Oldest Postgres that has everything schema.sql uses (SQL-standard function bodies, OR REPLACE for triggers). */
const POSTGRES_VERSION_MIN = 140000

const ROLE_FUNCTIONS = [
  'fingerprint(oid)',
  'read_as(text[], text[], text[], integer[], integer[], bigint, boolean, text, oid)',
  'candidates(regclass, POSTGIS.geometry[])',
  'epoch()',
  'begin_batch(text, uuid)',
  'finish_batch(text, uuid, json)',
  'refresh(regclass)',
  'prune(interval, interval)',
  'prune(interval, interval, integer, boolean)',
]

export interface InstallOptions {
  readonly tables: readonly TableConfig[]
  /** The role that servers connect as; null: the one that installs is the one that serves. */
  readonly role: string | null
}

/** Installs in one transaction. Rejects with an {@link OperatorError} that says what to do; then nothing was changed. */
export async function install(sql: Sql, options: InstallOptions): Promise<void> {
  await shortLockTransaction(sql, (transaction, run) => installIn(transaction, run, options)).catch(explain)
}

/** The SQL that {@link install} would run, made by running it and rolling back. */
export function installSql(sql: Sql, options: InstallOptions): Promise<string> {
  return shortLockTransactionSql(sql, (transaction, run) => installIn(transaction, run, options)).catch(
    explain,
  )
}

async function installIn(
  transaction: TransactionSql,
  run: RunStatement,
  { tables, role }: InstallOptions,
): Promise<void> {
  const before = await installSchema(transaction, run)
  const named = await readTables(transaction, tables)
  const others = await otherWatched(transaction, tables)
  const installer = await installerOf(transaction)
  const readFunctions: string[] = []
  for (const table of before !== null && before < SCHEMA_VERSION ? [...named, ...others] : named) {
    await run(triggerSql(table, installer, await relationsWithTriggers(transaction, table)))
    await run(readFunctionSql(table))
    await run(watchSql(table))
    readFunctions.push(`${readFunctionName(table)}${READ_FUNCTION_ARGUMENTS}`)
  }
  await run(`revoke all on function ${readFunctions.join(', ')} from public`)
  if (role !== null) await grant(transaction, role, readFunctions, run)
  if (installer.superuser) await installIndexRole(transaction, run, [...named, ...others])
  await run(
    `insert into datum.meta (version, oldest_server) values (${SCHEMA_VERSION}, ${OLDEST_SERVER})
on conflict (single) do update set version = excluded.version, oldest_server = excluded.oldest_server
  where (meta.version, meta.oldest_server) <> (excluded.version, excluded.oldest_server)`,
  )
}

async function installIndexRole(
  transaction: TransactionSql,
  run: RunStatement,
  tables: readonly Table[],
): Promise<void> {
  try {
    for (const statement of await indexRoleSql(transaction, tables)) await run(statement)
  } catch (error) {
    // Of a provider who keeps some things from its customers' superusers.
    if ((error as { code?: string }).code !== '42501') throw error
    throw new OperatorError(
      `This role is a superuser, but may not make the role ${INDEX_ROLE}, which datum.candidates must run as in its place: ${(error as Error).message}. Run setup as the owner of the tables.`,
    )
  }
}

async function readTables(transaction: TransactionSql, tables: readonly TableConfig[]): Promise<Table[]> {
  const read: Table[] = []
  for (const config of tables) {
    const table = await readTable(transaction as unknown as Sql, config)
    await refuseForeignParts(transaction, table)
    read.push(table)
  }
  return read
}

/**
 * Postgres cannot tell a statement trigger which rows of a foreign table that inherits were written: some versions fail
 * the write instead. (Partitions cannot be foreign: the id has a unique index.)
 */
async function refuseForeignParts(transaction: TransactionSql, { oid, wireName }: Table): Promise<void> {
  const [found] = await transaction<{ name: string }[]>`
    with recursive part (oid) as (
      select i.inhrelid from pg_inherits i where i.inhparent = ${oid}
      union select i.inhrelid from pg_inherits i join part on i.inhparent = part.oid
    )
    select c.oid::regclass::text as name from part join pg_class c on c.oid = part.oid where c.relkind = 'f' limit 1`
  if (found === undefined) return
  throw new OperatorError(
    `A part of ${wireName} is a foreign table (${found.name}), whose changes cannot be followed. Serve a table without such parts.`,
  )
}

/** Tables that other servers watch: their triggers are of the older version, too. What cannot be read is left alone. */
async function otherWatched(transaction: TransactionSql, tables: readonly TableConfig[]): Promise<Table[]> {
  const rows = await transaction<TableConfig[]>`
    select n.nspname as schema, c.relname as name, w.id_column as "idColumn", w.geometry_column as "geometryColumn"
      from datum.watched w join pg_class c on c.oid = w.rel join pg_namespace n on n.oid = c.relnamespace`
  const others: Table[] = []
  for (const config of rows) {
    if (tables.some(({ schema, name }) => schema === config.schema && name === config.name)) continue
    try {
      others.push(await readTable(transaction as unknown as Sql, config))
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error
    }
  }
  return others
}

/** Resolves to the version that was there before; null: none. */
async function installSchema(transaction: TransactionSql, run: RunStatement): Promise<number | null> {
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
  const exists = await refuseForeignSchema(transaction)
  const before = await installedVersion(transaction)
  // Fails if somebody makes one at this very moment.
  if (!exists) {
    await run('create schema datum')
    // Default privileges may have let others in.
    await refuseForeignSchema(transaction)
  }
  await run(
    schemaSql.replaceAll('{postgis}', quoteIdentifier(server.postgis)).replaceAll('{ring}', RING_BODY_SQL),
  )
  return before
}

async function installerOf(transaction: TransactionSql): Promise<{ role: string; superuser: boolean }> {
  const [row] = await transaction<{ role: string; superuser: boolean }[]>`
    select rolname as role, rolsuper as superuser from pg_roles where rolname = current_user`
  return row ?? { role: '', superuser: false }
}

function watchSql(table: Table): string {
  const { qualified, id, geometry } = table
  const geometryColumn = geometry === null ? 'null' : quoteLiteral(geometry.column.name)
  return `insert into datum.watched (rel, id_column, geometry_column, read_digest)
values (${quoteLiteral(qualified)}, ${quoteLiteral(id.column)}, ${geometryColumn}, ${quoteLiteral(readDigest(table))})
on conflict (rel) do update set id_column = excluded.id_column, geometry_column = excluded.geometry_column,
  read_digest = excluded.read_digest`
}

/** Refuses a newer one: what is installed must never go back. */
async function installedVersion(transaction: TransactionSql): Promise<number | null> {
  const [exists] = await transaction`select to_regclass('datum.meta') is not null as installed`
  if (!exists?.installed) return null
  const [meta] = await transaction<{ version: number }[]>`select version from datum.meta`
  if (meta !== undefined && meta.version > SCHEMA_VERSION) {
    throw new OperatorError(
      `This database was set up by a newer datum-server (schema version ${meta.version}, this one knows ${SCHEMA_VERSION}). Upgrade this server.`,
    )
  }
  return meta?.version ?? null
}

async function grant(
  transaction: TransactionSql,
  role: string,
  readFunctions: readonly string[],
  run: RunStatement,
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
  const own = ROLE_FUNCTIONS.map((name) => `datum.${name.replace('POSTGIS', postgis)}`)
  const functions = [...own, ...readFunctions].join(', ')
  await run(`grant select on datum.meta, datum.change, datum.watched to ${quoteIdentifier(role)};
grant execute on function ${functions} to ${quoteIdentifier(role)}`)
}

/** What stands between the database as it is and a server that wants to serve these tables. */
export type InstallState =
  | { readonly state: 'ready' }
  | { readonly state: 'absent' | 'outdated' | 'incomplete'; readonly problem: string }
  | { readonly state: 'newer' | 'foreign'; readonly problem: string }

/** Looks, as the server's role, whether everything is there and this role may use it. */
export async function installState(sql: Sql, tables: readonly TableConfig[]): Promise<InstallState> {
  const foreign = await foreignSchema(sql, tables)
  if (foreign !== null) return { state: 'foreign', problem: foreign }
  const [schema] = await sql`
    select to_regclass('datum.meta') is not null as installed,
           coalesce(has_table_privilege(to_regclass('datum.meta'), 'select'), false)
             and coalesce(has_table_privilege(to_regclass('datum.change'), 'select'), false)
             and coalesce(has_function_privilege(to_regprocedure('datum.read_as(text[], text[], text[], integer[], integer[], bigint, boolean, text, oid)'), 'execute'), false)
             as allowed`
  if (schema?.installed && !schema.allowed)
    return { state: 'incomplete', problem: 'this role may not use what is installed in the schema `datum`' }
  const fitness = await schemaFitness(sql)
  if (fitness.state !== 'fit') return fitness
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

function explain(error: unknown): never {
  if ((error as { code?: string }).code !== '42501') throw error
  throw new OperatorError(
    "This role may not install what live sync needs. Run `datum-server setup` with the URL of the tables' owner (or a superuser).",
  )
}
