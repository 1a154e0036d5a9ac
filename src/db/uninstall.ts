/**
 * Takes away what `setup` (install.ts) installed: the triggers, and the schema `datum` with everything in it. The
 * application's tables, policies and grants stay as they are; nothing that depends on datum is dropped along with it.
 */
import type { Sql, TransactionSql } from 'postgres'
import { OperatorError } from '../operator-error.ts'
import { quoteIdentifier } from './identifier.ts'
import { dropIndexRoleSql } from './index-role.ts'
import { type RunStatement, shortLockTransaction, shortLockTransactionSql } from './short-lock.ts'
import { TRIGGER_PREFIX } from './triggers.ts'

/** So many names are enough to know where to look. */
const NAMES_MAX = 20

/** Uninstalls in one transaction. Rejects with an {@link OperatorError} that says what to do; then nothing was changed. */
export async function uninstall(sql: Sql): Promise<void> {
  await shortLockTransaction(sql, uninstallIn).catch(explain)
}

/** The SQL that {@link uninstall} would run, made by running it and rolling back. */
export function uninstallSql(sql: Sql): Promise<string> {
  return shortLockTransactionSql(sql, uninstallIn).catch(explain)
}

async function uninstallIn(transaction: TransactionSql, run: RunStatement): Promise<void> {
  const [schema] = await transaction<{ installed: boolean }[]>`
    select to_regnamespace('datum') is not null and to_regclass('datum.meta') is not null as installed`
  if (!schema?.installed)
    throw new OperatorError('There is nothing to uninstall: this database has no schema `datum`.')
  await refuseUsed(transaction)
  for (const statement of await dropTriggers(transaction)) await run(statement)
  for (const statement of await dropContents(transaction)) await run(statement)
  // Restricted, as all the others: what somebody keeps in the schema, or has built on it meanwhile, stops the removal.
  await run('drop schema datum restrict')
  for (const statement of await dropIndexRoleSql(transaction)) await run(statement)
}

/** Policies and functions that call datum.claim() would raise errors without it, which denies everybody everything. */
async function refuseUsed(transaction: TransactionSql): Promise<void> {
  const users = await transaction<{ name: string }[]>`
    select distinct case d.classid
             when 'pg_policy'::regclass then
               (select format('the policy %I on %s', p.polname, p.polrelid::regclass) from pg_policy p where p.oid = d.objid)
             else pg_describe_object(d.classid, d.objid, 0) end as name
      from pg_depend d
     where d.deptype in ('n', 'a')
       and ((d.refclassid = 'pg_proc'::regclass
             and d.refobjid in (select p.oid from pg_proc p where p.pronamespace = 'datum'::regnamespace))
         or (d.refclassid = 'pg_class'::regclass
             and d.refobjid in (select c.oid from pg_class c where c.relnamespace = 'datum'::regnamespace)))
       and not (d.classid = 'pg_trigger'::regclass
                and exists (select from pg_trigger t where t.oid = d.objid and starts_with(t.tgname, ${TRIGGER_PREFIX})))
       and not exists (select from pg_proc p where d.classid = 'pg_proc'::regclass and p.oid = d.objid
                        and p.pronamespace = 'datum'::regnamespace)
       and not exists (select from pg_class c where d.classid = 'pg_class'::regclass and c.oid = d.objid
                        and c.relnamespace in ('datum'::regnamespace, 'pg_toast'::regnamespace))
       and not exists (select from pg_type t where d.classid = 'pg_type'::regclass and t.oid = d.objid
                        and t.typnamespace in ('datum'::regnamespace, 'pg_toast'::regnamespace))
       and not exists (select from pg_constraint n join pg_class c on c.oid = n.conrelid
                        where d.classid = 'pg_constraint'::regclass and n.oid = d.objid
                          and c.relnamespace = 'datum'::regnamespace)
       and not exists (select from pg_attrdef a join pg_class c on c.oid = a.adrelid
                        where d.classid = 'pg_attrdef'::regclass and a.oid = d.objid
                          and c.relnamespace = 'datum'::regnamespace)
    union
    -- What is called from a function's text is on no record.
    select format('the function %s', p.oid::regprocedure) from pg_proc p
     where p.pronamespace <> 'datum'::regnamespace and p.prosrc ~ '\\mdatum\\.claim\\M'
     order by name`
  if (users.length === 0) return
  const names = users.slice(0, NAMES_MAX).map(({ name }) => `  ${name}`)
  if (users.length > NAMES_MAX) names.push(`  and ${users.length - NAMES_MAX} more`)
  throw new OperatorError(
    `Nothing was uninstalled, since this uses what is in the schema \`datum\` and would raise errors without it:
${names.join('\n')}
In policies and functions write nullif(current_setting('datum.org_id', true), '') instead of datum.claim('org_id'), which is the same; then try again.`,
  )
}

async function dropTriggers(transaction: TransactionSql): Promise<string[]> {
  const triggers = await transaction<{ name: string; relation: string }[]>`
    select t.tgname as name, format('%I.%I', n.nspname, c.relname) as relation
      from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
      join pg_proc p on p.oid = t.tgfoid
     where starts_with(t.tgname, ${TRIGGER_PREFIX}) and p.pronamespace = 'datum'::regnamespace
     order by t.tgrelid, t.tgname`
  return triggers.map(({ name, relation }) => `drop trigger ${quoteIdentifier(name)} on ${relation}`)
}

async function dropContents(transaction: TransactionSql): Promise<string[]> {
  const functions = await transaction<{ signature: string }[]>`
    select format('%I.%I(%s)', 'datum', p.proname, pg_get_function_identity_arguments(p.oid)) as signature
      from pg_proc p where p.pronamespace = 'datum'::regnamespace order by 1`
  const tables = await transaction<{ name: string }[]>`
    select format('%I.%I', 'datum', c.relname) as name
      from pg_class c where c.relnamespace = 'datum'::regnamespace and c.relkind in ('r', 'p') order by 1`
  // Many in one statement, because some depend on others.
  return [
    `drop function ${functions.map(({ signature }) => signature).join(',\n  ')} restrict`,
    `drop table ${tables.map(({ name }) => name).join(', ')} restrict`,
  ]
}

function explain(error: unknown): never {
  const { code } = error as { code?: string }
  if (code === '42501') {
    throw new OperatorError(
      'This role may not uninstall live sync. Use the URL of whoever ran `setup` (or a superuser): it takes the owner of the schema `datum` and of the tables.',
    )
  }
  if (code === '2BP01') {
    throw new OperatorError(
      'Nothing was uninstalled: something that is not part of datum is in the schema `datum`, or depends on it. Move or drop it, then try again. (`\\dn+ datum`, `\\dt datum.*` and `\\df datum.*` in psql show what is there.)',
    )
  }
  throw error
}
