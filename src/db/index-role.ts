/**
 * The role that `datum.candidates` (sql/schema.sql) runs as where a superuser installs: it passes row security by, and may
 * read the places of watched tables and nothing else. `install.ts` makes it, `uninstall.ts` takes it away.
 *
 * Not the superuser, since a query on a table runs code of the table's owner even before it reads: the planner evaluates
 * what is called IMMUTABLE in the expressions of extended statistics, indexes and partitions. To look for such
 * expressions first would be no help, as they can be made between that and the planning.
 */
import type { TransactionSql } from 'postgres'
import { OperatorError } from '../operator-error.ts'
import type { Table } from './catalog.ts'
import { quoteIdentifier } from './identifier.ts'

/** Of the whole cluster: databases share it, each with grants of its own. */
export const INDEX_ROLE = 'datum_index'

const ATTRIBUTES = 'nologin nosuperuser nocreatedb nocreaterole noinherit noreplication bypassrls'

type IndexedTable = Pick<Table, 'oid' | 'qualified' | 'geometry' | 'postgis'>

/**
 * The SQL that makes the role, gives it these tables to look into, and hands `datum.candidates` over to it; only what is
 * still to do, so that a second `setup` changes nothing. To be run as a superuser.
 * Rejects with an {@link OperatorError} where somebody else made a role of that name.
 */
export async function indexRoleSql(
  transaction: TransactionSql,
  tables: readonly IndexedTable[],
): Promise<string[]> {
  const statements = await roleSql(transaction)
  const postgis = tables[0]?.postgis
  if (postgis === undefined) return statements
  for (const schema of await schemasToOpen(transaction, tables)) {
    statements.push(`grant usage on schema ${quoteIdentifier(schema)} to ${INDEX_ROLE}`)
  }
  for (const table of tables) statements.push(...(await tableSql(transaction, table)))
  const signature = `datum.candidates(regclass, ${postgis}.geometry[])`
  const [ready] = await transaction`
    select from pg_roles r
     where r.rolname = ${INDEX_ROLE} and has_table_privilege(r.oid, 'datum.watched', 'select')
       and exists (select from pg_proc p where p.oid = to_regprocedure(${signature}) and p.proowner = r.oid)`
  if (ready === undefined) {
    statements.push(
      `grant select on datum.watched to ${INDEX_ROLE}`,
      `alter function ${signature} owner to ${INDEX_ROLE}`,
    )
  }
  return statements
}

async function roleSql(transaction: TransactionSql): Promise<string[]> {
  const [role] = await transaction<{ same: boolean; joined: string | null }[]>`
    select not (r.rolcanlogin or r.rolsuper or r.rolcreatedb or r.rolcreaterole or r.rolreplication)
             and r.rolbypassrls as same,
           -- Who is in it, or what it is in, could use its rights or lend it others.
           (select string_agg(distinct pg_get_userbyid(case when m.roleid = r.oid then m.member else m.roleid end)::text, ', ')
              from pg_auth_members m where r.oid in (m.roleid, m.member)) as joined
      from pg_roles r where r.rolname = ${INDEX_ROLE}`
  if (role === undefined) {
    // Of two databases that are set up at the same time, one finds that the other has just made it.
    return [
      `do $$ begin create role ${INDEX_ROLE} ${ATTRIBUTES};
  comment on role ${INDEX_ROLE} is 'Finds rows by place for datum-server, past row security: owns datum.candidates';
exception when duplicate_object or unique_violation then null; end $$`,
    ]
  }
  if (role.same && role.joined === null) return []
  throw new OperatorError(
    role.joined === null
      ? `There is a role ${INDEX_ROLE} that is not as setup makes it. If it is not used for something else, run: ALTER ROLE ${INDEX_ROLE} ${ATTRIBUTES.toUpperCase()}; otherwise rename it.`
      : `The role ${INDEX_ROLE}, which setup makes and nobody else should use, shares its rights with others (${role.joined}). Revoke these memberships; if it is used for something else, rename it.`,
  )
}

/** Schemas that the role must look names up in and was not let into. What everybody may could be revoked from everybody. */
async function schemasToOpen(
  transaction: TransactionSql,
  tables: readonly IndexedTable[],
): Promise<string[]> {
  const rows = await transaction<{ name: string }[]>`
    select distinct n.nspname::text as name from pg_namespace n
     where (n.oid in (select c.relnamespace from pg_class c where c.oid in ${transaction(tables.map(({ oid }) => oid))})
            or n.oid = (select e.extnamespace from pg_extension e where e.extname = 'postgis'))
       and not exists (select from aclexplode(n.nspacl) a join pg_roles r on r.oid = a.grantee
                        where r.rolname = ${INDEX_ROLE} and a.privilege_type = 'USAGE')
     order by name`
  return rows.map(({ name }) => name)
}

/** Columns, since a row's other values are nobody's business here. `ctid` is one, as far as grants go. */
async function tableSql(
  transaction: TransactionSql,
  { oid, qualified, geometry }: IndexedTable,
): Promise<string[]> {
  // datum.candidates looks into columns of this type only.
  const column = geometry?.column.baseType === 'geometry' ? geometry.column.name : null
  const wanted = column === null ? [] : ['ctid', column]
  const granted = await transaction<{ name: string | null }[]>`
    select a.attname::text as name from pg_roles r, pg_attribute a, aclexplode(a.attacl) acl
     where r.rolname = ${INDEX_ROLE} and a.attrelid = ${oid} and not a.attisdropped and acl.grantee = r.oid
    union select null from pg_roles r, pg_class c, aclexplode(c.relacl) acl
     where r.rolname = ${INDEX_ROLE} and c.oid = ${oid} and acl.grantee = r.oid`
  const isAsWanted =
    granted.length === wanted.length && granted.every(({ name }) => name !== null && wanted.includes(name))
  if (isAsWanted) return []
  const statements = granted.length === 0 ? [] : [`revoke all on ${qualified} from ${INDEX_ROLE}`]
  if (column !== null) {
    statements.push(`grant select (ctid, ${quoteIdentifier(column)}) on ${qualified} to ${INDEX_ROLE}`)
  }
  return statements
}

/**
 * The SQL that takes the role's grants in this database away, and the role unless another database uses it. To be run when
 * `datum.candidates` is dropped.
 */
export async function dropIndexRoleSql(transaction: TransactionSql): Promise<string[]> {
  const [used] = await transaction`
    select from pg_shdepend s join pg_roles r on r.oid = s.refobjid
     where s.refclassid = 'pg_authid'::regclass and r.rolname = ${INDEX_ROLE}
       and s.dbid = (select d.oid from pg_database d where d.datname = current_database())`
  if (used === undefined) return []
  return [
    `drop owned by ${INDEX_ROLE} restrict`,
    `do $$ begin drop role ${INDEX_ROLE};
exception when dependent_objects_still_exist then null; end $$`,
  ]
}
