/**
 * The version of what is installed in the schema `datum`, and whether this server can go on with it. Asked at the start
 * (install.ts) and again while the server runs (sync/hub.ts), since somebody may upgrade or uninstall it meanwhile.
 */
import type { Sql } from 'postgres'
import { errorCode } from './error-code.ts'

/** Grows with every change of sql/schema.sql or triggers.ts. A server installs this version, or asks for it. */
export const SCHEMA_VERSION = 2

/**
 * The oldest version whose servers can go on with what this one installs, so that servers can be replaced one after the
 * other: what they call is still there and means the same. Grows to {@link SCHEMA_VERSION} where that cannot be had.
 */
export const OLDEST_SERVER = 2

type SchemaFitness =
  | { readonly state: 'fit' }
  | { readonly state: 'absent' | 'outdated' | 'newer'; readonly problem: string }

/** SQLSTATEs undefined_function, undefined_table, invalid_schema_name, insufficient_privilege. */
const NOT_TO_BE_HAD = new Set(['42883', '42P01', '3F000', '42501'])

/** Whether a statement about the schema `datum` itself failed since that is removed, replaced, or not this role's to use. */
export function isWithoutSchema(error: unknown): boolean {
  return NOT_TO_BE_HAD.has(errorCode(error))
}

/**
 * For a statement about the schema `datum` itself that failed: where it is not as expected nothing was decided, and it is
 * to be tried again, as if Postgres were away (SQLSTATE cannot_connect_now), until somebody mends it or this server
 * notices and stops (sync/hub.ts). Throws that, or the error as it is.
 */
export function throwWithoutSchema(error: unknown): never {
  if (!isWithoutSchema(error)) throw error
  throw Object.assign(new Error('the schema datum is not as expected'), { code: '57P03' })
}

/** Rejects if the database cannot be asked, or the role may not look. */
export async function schemaFitness(sql: Sql): Promise<SchemaFitness> {
  const [schema] = await sql<
    { installed: boolean }[]
  >`select to_regclass('datum.meta') is not null as installed`
  if (!schema?.installed)
    return { state: 'absent', problem: 'the schema `datum` is not installed in this database' }
  // As JSON, because the first version had no column `oldest_server`.
  const [meta] = await sql<{ version: number; oldest_server: number | null }[]>`
    select m.version, (to_jsonb(m) ->> 'oldest_server')::int as oldest_server from datum.meta m`
  const version = meta?.version ?? 0
  if (version < SCHEMA_VERSION)
    return {
      state: 'outdated',
      problem: `the schema \`datum\` has version ${version}, this server needs ${SCHEMA_VERSION}`,
    }
  if (version > SCHEMA_VERSION && (meta?.oldest_server ?? version) > SCHEMA_VERSION)
    return {
      state: 'newer',
      problem: `the schema \`datum\` has version ${version}, which servers of version ${SCHEMA_VERSION} like this one cannot use. Upgrade datum-server`,
    }
  return { state: 'fit' }
}
