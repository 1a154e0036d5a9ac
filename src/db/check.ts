/**
 * What is wrong with the role, the tables and the policies: for `datum-server check`, and in part for the warnings at
 * the start. Looks with the server's own role and changes nothing.
 */
import type { Sql } from 'postgres'
import type { Config, TableConfig } from '../config/config.ts'
import { OperatorError } from '../operator-error.ts'
import { readTable, type Table } from './catalog.ts'
import type { Database } from './database.ts'
import { quoteIdentifier } from './identifier.ts'
import { INDEX_ROLE } from './index-role.ts'
import { installState, unwatchedPartitions } from './install.ts'

export interface Finding {
  /** error: the server cannot do its work. warning: it does, but not as its owner probably means it. */
  readonly severity: 'error' | 'warning'
  /** The role or the table that it is about. */
  readonly subject: string
  readonly problem: string
  /** What to do, as a command where there is one. */
  readonly remedy: string
}

/** Everything that is wrong. Empty: nothing. Rejects only if the database cannot be asked. */
export async function checkDatabase(database: Database, config: Config): Promise<Finding[]> {
  const { sql } = database
  const findings: Finding[] = []
  const installed = await installState(sql, config.tables)
  if (installed.state !== 'ready') {
    findings.push({
      severity: 'error',
      subject: 'database',
      problem: `Live sync is not set up: ${installed.problem}.`,
      remedy: installed.state === 'foreign' ? 'See the message.' : await setupCommand(sql, config),
    })
  }
  findings.push(...(await checkBeforeStart(sql, config)))
  if (installed.state === 'absent' || installed.state === 'newer' || installed.state === 'foreign')
    return findings
  for (const tableConfig of config.tables) {
    try {
      findings.push(...(await checkServing(sql, await readTable(sql, tableConfig))))
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error
      findings.push({
        severity: 'error',
        subject: tableConfig.name,
        problem: error.message,
        remedy: 'See the message.',
      })
    }
  }
  return findings
}

/** The command that makes this database ready, to be run with the URL of the tables' owner. */
export async function setupCommand(sql: Sql, config: Config): Promise<string> {
  const [row] = await sql<
    { role: string; database: string }[]
  >`select current_user as role, current_database() as database`
  const owner = `postgres://OWNER:PASSWORD@${hostOf(config.databaseUrl)}/${row?.database ?? ''}`
  const configFlag = config.configFile == null ? '' : ` -config ${config.configFile}`
  return `datum-server setup${configFlag} -db ${owner} --role ${row?.role ?? 'datum_app'}`
}

/** The host of the server's own URL; several, or a URL that only libpq understands, are for the operator to fill in. */
function hostOf(databaseUrl: string | null): string {
  return databaseUrl !== null && URL.canParse(databaseUrl) ? new URL(databaseUrl).host : 'HOST'
}

interface RoleRow {
  role: string
  superuser: boolean
  bypass: boolean
}

interface SecurityRow {
  relrowsecurity: boolean
  relforcerowsecurity: boolean
  is_owner: boolean
  readable: boolean
  select_policies: number
}

/** What is dangerous or will be missed: the warnings of the start. */
export async function checkBeforeStart(sql: Sql, config: Config): Promise<Finding[]> {
  const findings = [...(await checkRowSecurity(sql, config)), ...(await checkIndexRole(sql, config))]
  for (const table of config.tables) {
    const partitions = await unwatchedPartitions(sql, table)
    if (partitions.length === 0) continue
    findings.push({
      severity: 'warning',
      subject: table.name,
      problem: `Partitions were added since the set-up (${partitions.slice(0, 3).join(', ')}${partitions.length > 3 ? ', …' : ''}): what is written straight into them is not seen.`,
      remedy: await setupCommand(sql, config),
    })
  }
  return findings
}

/** Whether code of tables' owners could become superuser (index-role.ts). */
async function checkIndexRole(sql: Sql, config: Config): Promise<Finding[]> {
  const [superuser] = await sql<{ name: string }[]>`
    select o.rolname as name from pg_proc p join pg_roles o on o.oid = p.proowner
     where p.proname = 'candidates' and p.pronamespace = to_regnamespace('datum') and o.rolsuper`
  if (superuser === undefined) return []
  return [
    {
      severity: 'warning',
      subject: 'datum.candidates',
      problem: `It belongs to a superuser (${superuser.name}): whoever owns a served table can run code as that superuser. An older setup left it so, or a restore into a cluster that has no role ${INDEX_ROLE}.`,
      remedy: `Run setup again as a superuser: ${await setupCommand(sql, config)}`,
    },
  ]
}

/** Whether row level security binds this role at all. */
async function checkRowSecurity(sql: Sql, config: Config): Promise<Finding[]> {
  const [role] = await sql<RoleRow[]>`
    select rolname as role, rolsuper as superuser, rolbypassrls as bypass from pg_roles where rolname = current_user`
  if (role === undefined) return []
  const remedy = `Connect as a restricted role: CREATE ROLE datum_app LOGIN PASSWORD 'your-password'; and grant it what clients may do.`
  if (role.superuser) {
    return [
      {
        severity: 'warning',
        subject: `role ${role.role}`,
        problem:
          'It is a superuser, and superusers bypass Row Level Security: every client sees and writes everything.',
        remedy,
      },
    ]
  }
  if (role.bypass) {
    return [
      {
        severity: 'warning',
        subject: `role ${role.role}`,
        problem: 'It has BYPASSRLS: every client sees and writes everything.',
        remedy: `ALTER ROLE ${quoteIdentifier(role.role)} NOBYPASSRLS;`,
      },
    ]
  }
  if (config.auth === null) return []
  const findings: Finding[] = []
  for (const table of config.tables) findings.push(...(await checkTableSecurity(sql, table)))
  return findings
}

async function checkTableSecurity(sql: Sql, { schema, name }: TableConfig): Promise<Finding[]> {
  const qualified = `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`
  const [row] = await sql<SecurityRow[]>`
    select c.relrowsecurity, c.relforcerowsecurity, pg_has_role(c.relowner, 'usage') as is_owner,
           has_table_privilege(c.oid, 'select') or has_any_column_privilege(c.oid, 'select') as readable,
           (select count(*)::int from pg_policy p where p.polrelid = c.oid and p.polcmd in ('*', 'r') and p.polpermissive) as select_policies
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = ${schema} and c.relname = ${name}`
  if (row === undefined) return []
  const warn = (problem: string, remedy: string): Finding => ({
    severity: 'warning',
    subject: qualified,
    problem,
    remedy,
  })
  if (!row.readable) {
    return [
      {
        severity: 'error',
        subject: qualified,
        problem: 'The role may not read it.',
        remedy: `GRANT SELECT, INSERT, UPDATE, DELETE ON ${qualified} TO CURRENT_USER; (as its owner, naming the role)`,
      },
    ]
  }
  if (!row.relrowsecurity) {
    return [
      warn(
        'It has no Row Level Security: every client sees and writes all of its rows.',
        `ALTER TABLE ${qualified} ENABLE ROW LEVEL SECURITY; ALTER TABLE ${qualified} FORCE ROW LEVEL SECURITY;`,
      ),
    ]
  }
  if (row.is_owner && !row.relforcerowsecurity) {
    return [
      warn(
        'The role owns it, and Row Level Security does not bind owners: every client sees and writes all of its rows.',
        `ALTER TABLE ${qualified} FORCE ROW LEVEL SECURITY;`,
      ),
    ]
  }
  if (row.select_policies === 0) {
    return [
      warn(
        'It has Row Level Security but no policy to read by: no client sees any row.',
        `CREATE POLICY … ON ${qualified} USING (…);`,
      ),
    ]
  }
  return []
}

/** What makes serving a table slow. */
async function checkServing(sql: Sql, table: Table): Promise<Finding[]> {
  const { geometry, wireName, rowSecurity, candidatesBypass } = table
  if (geometry === null) return []
  const { name, baseType, srid } = geometry.column
  const warn = (problem: string, remedy: string): Finding => ({
    severity: 'warning',
    subject: wireName,
    problem,
    remedy,
  })
  if (baseType !== 'geometry' || (srid !== 4326 && srid !== 3857)) {
    return [
      warn(
        `Its ${name} is ${geometry.column.type}: a box cannot use its spatial index, so every view reads the whole table.`,
        'Store the geometry as geometry(…, 4326) if the table is large.',
      ),
    ]
  }
  const [index] = await sql`
    select 1 from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
      join pg_attribute t on t.attrelid = i.indrelid and t.attnum = i.indkey[0]
     where i.indrelid = ${table.oid} and a.amname in ('gist', 'spgist', 'brin') and t.attname = ${name} and i.indisvalid and i.indpred is null`
  if (index === undefined) {
    return [
      warn(
        `Its ${name} has no spatial index, so every view reads the whole table.`,
        `CREATE INDEX CONCURRENTLY ON ${table.qualified} USING gist (${quoteIdentifier(name)});`,
      ),
    ]
  }
  if (rowSecurity && table.hasChildren) {
    return [
      warn(
        'It has partitions: under Row Level Security a box cannot use their spatial indexes, so every view reads the whole table.',
        'Serve an unpartitioned table if it is large.',
      ),
    ]
  }
  if (rowSecurity && !candidatesBypass) {
    return [
      warn(
        'Under Row Level Security Postgres may not use the spatial index (&& is not leakproof), and the owner of datum.candidates is bound by it too, or may not read the geometry: every view reads the whole table.',
        "Run `datum-server setup` as a superuser (if the tables' owner ran it before, after `setup --uninstall`), or as an owner of the tables with BYPASSRLS.",
      ),
    ]
  }
  return []
}
