/**
 * Whose the schema `datum` is, and whether that may be. Whoever may create schemas could have made it first, with tables
 * and functions of their own: `install.ts` must not build on these, and a server must not call them.
 */
import type { Sql, TransactionSql } from 'postgres'
import type { TableConfig } from '../config/config.ts'
import { OperatorError } from '../operator-error.ts'
import { INDEX_ROLE } from './index-role.ts'

/**
 * Resolves to whether the schema is there. Rejects with an {@link OperatorError} if it, or something in it, belongs to
 * somebody who is neither a superuser nor who is installing. To be called before anything in the schema is looked at:
 * a table may be a view, or have a trigger, and so run code of its owner as the one who installs.
 *
 * What passes stays as it is, since only those who own the schema can let others put something into it. Taking over what
 * others made would not do: triggers, rules and defaults stay theirs. Nor would becoming them by SET ROLE: their code
 * could RESET it.
 */
export async function refuseForeignSchema(transaction: TransactionSql): Promise<boolean> {
  const [schema] = await transaction`select from pg_namespace where nspname = 'datum'`
  if (schema === undefined) return false
  const [foreign] = await transaction<{ what: string; owner: string; may_create: boolean }[]>`
    with trusted as (select r.oid from pg_roles r where r.rolsuper or r.rolname = current_user),
    schema as (select n.oid, n.nspowner, n.nspacl from pg_namespace n where n.nspname = 'datum'),
    part (what, owner, may_create) as (
      select 'The schema \`datum\`', s.nspowner, false from schema s
      union all
      select 'In the schema \`datum\` the function ' || p.oid::regprocedure, p.proowner, false
        from pg_proc p join schema s on s.oid = p.pronamespace
       -- Which run as the owners of their tables (triggers.ts); and what is theirs is made anew as a whole.
       where not (p.prorettype = 'trigger'::regtype and starts_with(p.proname, 'log_'))
         and not (p.proname = 'candidates' and p.proowner = coalesce(to_regrole(${INDEX_ROLE}), 0))
      union all
      select 'In the schema \`datum\` the relation ' || c.oid::regclass, c.relowner, false
        from pg_class c join schema s on s.oid = c.relnamespace
      union all
      select 'In the schema \`datum\` the type ' || t.oid::regtype, t.typowner, false
        from pg_type t join schema s on s.oid = t.typnamespace
      union all
      select '', a.grantee, true from schema s, aclexplode(s.nspacl) a
       where a.privilege_type = 'CREATE' and a.grantee <> s.nspowner
    )
    select p.what, case when p.owner = 0 then 'PUBLIC' else pg_get_userbyid(p.owner)::text end as owner, p.may_create
      from part p where p.owner not in (select t.oid from trusted t) limit 1`
  if (foreign === undefined) return true
  const { what, owner, may_create } = foreign
  throw new OperatorError(
    may_create
      ? `The role ${owner} may create objects in the schema \`datum\`, and so have code of its own run as others. Revoke that: REVOKE CREATE ON SCHEMA datum FROM …`
      : `${what} belongs to ${owner}, who can change what it does, and so have code run as whoever installs, writes or reads. If ${owner} set up live sync as the owner of all tables that are served, run setup as ${owner} again. Otherwise let a superuser remove the schema (\`datum-server setup --uninstall\`, or DROP SCHEMA datum CASCADE if it is not datum-server's), then try again.`,
  )
}

/**
 * What is wrong with the schema's owner, from a server's point of view; null: nothing. It may be a superuser, the server's
 * own role, or who has the rights of the owners of all served tables, who could do as much by their policies.
 */
export async function foreignSchema(sql: Sql, tables: readonly TableConfig[]): Promise<string | null> {
  const [schema] = await sql<{ owner: string; trusted: boolean }[]>`
    select r.rolname as owner, r.rolsuper or r.rolname = current_user as trusted
      from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = 'datum'`
  if (schema === undefined || schema.trusted) return null
  let found = 0
  for (const { schema: tableSchema, name } of tables) {
    const [table] = await sql<{ allowed: boolean }[]>`
      select pg_has_role(${schema.owner}, c.relowner, 'member') as allowed
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname = ${tableSchema} and c.relname = ${name}`
    if (table !== undefined && !table.allowed) {
      return `the schema \`datum\` belongs to ${schema.owner}, who does not own the table ${tableSchema}.${name}, and whose code would be run for it. Let a superuser remove the schema (\`datum-server setup --uninstall\`, or DROP SCHEMA datum CASCADE if it is not datum-server's) and run setup`
    }
    if (table !== undefined) found++
  }
  return found > 0
    ? null
    : `the schema \`datum\` belongs to ${schema.owner}, who owns none of the tables to be served`
}
