/**
 * The SQL that makes one table write to the change log: a function of its own, so that Postgres keeps its plans, and
 * one statement trigger each for INSERT, UPDATE, DELETE and TRUNCATE. Part of what `install.ts` puts together.
 */
import { createHash } from 'node:crypto'
import type { Sql, TransactionSql } from 'postgres'
import type { Table } from './catalog.ts'
import { RING_SQL } from './doorbell.ts'
import { dollarQuoted, quoteIdentifier, quoteLiteral } from './identifier.ts'

/** Trigger names sort last, so that what the application's own triggers did to the rows is seen. */
export const TRIGGER_PREFIX = 'zz_datum_'

const EVERYWHERE = `'((Infinity,Infinity),(-Infinity,-Infinity))'::pg_catalog.box`

export type WatchedTable = Pick<Table, 'qualified' | 'owner' | 'id' | 'geometry' | 'postgis' | 'partitions'>

/** `installer`: who runs it, and whether that is a superuser. `ready`: relations whose triggers are as they should be. */
export function triggerSql(
  table: WatchedTable,
  installer: { role: string; superuser: boolean },
  ready: ReadonlySet<string> = new Set(),
): string {
  const log = logFunction(table)
  const id = quoteIdentifier(table.id.column)
  return `
-- ${table.qualified.replaceAll('\n', ' ')}
create or replace function ${log}() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as ${dollarQuoted(`
declare
  -- Of a partition that was written to directly, the change is its root's, which is what is served.
  changed oid := case when tg_nargs = 0 then tg_relid else coalesce(pg_partition_root(tg_relid), tg_relid) end;
  logged bigint;
begin
  begin
    if tg_op = 'INSERT' then
      insert into datum.change (rel, id, new_box)
      select changed, n.${id}::text, ${envelopeSql(table, 'n')} from datum_new n;
    elsif tg_op = 'UPDATE' then
      insert into datum.change (rel, id, old_box, new_box)
      select changed, coalesce(n.${id}, o.${id})::text, ${envelopeSql(table, 'o')}, ${envelopeSql(table, 'n')}
        from datum_old o full join datum_new n on n.${id} = o.${id};
    elsif tg_op = 'DELETE' then
      insert into datum.change (rel, id, old_box)
      select changed, o.${id}::text, ${envelopeSql(table, 'o')} from datum_old o;
    else
      insert into datum.change (rel) values (changed);
    end if;
    get diagnostics logged = row_count;
  exception when others then
    -- The application's write must not fail because of this log. Without an id, servers compare whole views instead.
    begin
      insert into datum.change (rel) values (changed);
    exception when others then
      raise warning 'datum could not log a change of % (%)', tg_relid::regclass, sqlstate;
    end;
  end;
  -- By itself, so that the entries stay if it fails: servers look at the log anyway, if only every two seconds.
  begin
    ${RING_SQL};
    -- A chance of one in a thousand for each row. Not random(), whose sequence may be the application's.
    if date_part('microseconds', clock_timestamp())::integer % 1000 < logged then
      perform datum.tidy(logged);
    end if;
  exception when others then
    null;
  end;
  return null;
end `)};
revoke all on function ${log}() from public;
${ownerSql(table, log, installer)}${relationsOf(table)
  .filter(({ name }) => !ready.has(name))
  .map(({ name, execute }) => triggersSql(name, execute))
  .join('')}`
}

/**
 * The table and its partitions, as far as they have these very triggers, switched on. Those need no lock, and views that
 * are open need not be compared because of triggers that are others now.
 */
export async function relationsWithTriggers(
  sql: Sql | TransactionSql,
  table: WatchedTable,
): Promise<ReadonlySet<string>> {
  const ready = new Set<string>()
  for (const { name, execute } of relationsOf(table)) {
    const [found] = await sql<{ marks: number }[]>`
      select count(*)::int as marks from pg_trigger t
       where t.tgrelid = to_regclass(${name}) and t.tgenabled = 'A' and starts_with(t.tgname, ${TRIGGER_PREFIX})
         and obj_description(t.oid, 'pg_trigger') = ${markOf(name, execute)}`
    if (found?.marks === EVENTS.length) ready.add(name)
  }
  return ready
}

function logFunction(table: WatchedTable): string {
  const suffix = createHash('sha256').update(table.qualified).digest('hex').slice(0, 12)
  return `datum.${quoteIdentifier(`log_${suffix}`)}`
}

/** What has triggers of its own, and the call that these execute. */
function relationsOf(table: WatchedTable): readonly { name: string; execute: string }[] {
  const log = logFunction(table)
  return [
    { name: table.qualified, execute: `${log}()` },
    ...table.partitions.map((name) => ({ name, execute: `${log}('partition')` })),
  ]
}

/**
 * The function runs as the table's owner and not as the installer, who may be a superuser: casts and operators of the
 * columns' types are the owner's code.
 */
function ownerSql(
  { owner }: WatchedTable,
  log: string,
  installer: { role: string; superuser: boolean },
): string {
  // Also where that is the owner: the function may still be an earlier one's, who could alter it.
  if (!installer.superuser) return ''
  const role = quoteIdentifier(owner)
  return `alter function ${log}() owner to ${role};
grant insert (rel, id, old_box, new_box) on datum.change to ${role};
grant execute on function datum.ring(), datum.tidy(bigint) to ${role};
`
}

const EVENTS = ['insert', 'update', 'delete', 'truncate'] as const

const REFERENCING = {
  insert: 'referencing new table as datum_new ',
  update: 'referencing old table as datum_old new table as datum_new ',
  delete: 'referencing old table as datum_old ',
  truncate: '',
}

/** Always enabled: a bulk load as `session_replication_role = replica` changes what clients see like any other write. */
function triggersSql(relation: string, execute: string): string {
  const mark = quoteLiteral(markOf(relation, execute))
  return EVENTS.map(
    (event) => `${triggerDefinition(event, relation, execute)};
alter table ${relation} enable always trigger ${TRIGGER_PREFIX}${event};
comment on trigger ${TRIGGER_PREFIX}${event} on ${relation} is ${mark};
`,
  ).join('')
}

function triggerDefinition(event: (typeof EVENTS)[number], relation: string, execute: string): string {
  return `create or replace trigger ${TRIGGER_PREFIX}${event} after ${event} on ${relation}
  ${REFERENCING[event]}for each statement execute function ${execute}`
}

/** Tells triggers from others, of an older version say. Their comment. */
function markOf(relation: string, execute: string): string {
  const definitions = EVENTS.map((event) => triggerDefinition(event, relation, execute)).join(';')
  return `datum-server ${createHash('sha256').update(definitions).digest('hex').slice(0, 12)}`
}

/**
 * The envelope that decides who may care. Goes by what the value says of itself, not by the column's type of today,
 * which may be altered. A geometry that cannot be transformed could be anywhere.
 */
function envelopeSql({ geometry, postgis }: WatchedTable, alias: string): string {
  if (geometry === null) return 'null'
  const value = `${alias}.${quoteIdentifier(geometry.column.name)}::${postgis}.geometry`
  return `case when ${value} is null then null
        when ${postgis}.st_srid(${value}) = 4326 then ${postgis}.box(${value})
        else coalesce(${postgis}.box(datum.to_wgs84(${value})), ${EVERYWHERE}) end`
}
