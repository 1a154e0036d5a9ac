/**
 * The version of what is installed in the schema `datum`, and whether this server can go on with it. Asked at the start
 * (install.ts) and again while the server runs (sync/hub.ts), since somebody may upgrade or uninstall it meanwhile.
 */
import type { Sql } from 'postgres'

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
