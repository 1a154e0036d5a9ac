/**
 * The SQL that makes one table write to the change log: a function of its own, so that Postgres keeps its plans, and
 * one statement trigger each for INSERT, UPDATE, DELETE and TRUNCATE. Part of what `install.ts` puts together.
 */
import { createHash } from 'node:crypto'
import type { Table } from './catalog.ts'
import { RING_SQL } from './doorbell.ts'
import { dollarQuoted, quoteIdentifier } from './identifier.ts'

/** Trigger names sort last, so that what the application's own triggers did to the rows is seen. */
export const TRIGGER_PREFIX = 'zz_datum_'

const EVERYWHERE = `'((Infinity,Infinity),(-Infinity,-Infinity))'::pg_catalog.box`

export type WatchedTable = Pick<Table, 'qualified' | 'owner' | 'id' | 'geometry' | 'postgis' | 'partitions'>

/** `installer`: who runs it, and whether that is a superuser. */
export function triggerSql(table: WatchedTable, installer: { role: string; superuser: boolean }): string {
  const suffix = createHash('sha256').update(table.qualified).digest('hex').slice(0, 12)
  const log = `datum.${quoteIdentifier(`log_${suffix}`)}`
  const id = quoteIdentifier(table.id.column)
  return `
-- ${table.qualified.replaceAll('\n', ' ')}
create or replace function ${log}() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as ${dollarQuoted(`
declare
  -- Of a partition that was written to directly, the change is its root's, which is what is served.
  changed oid := case when tg_nargs = 0 then tg_relid else coalesce(pg_partition_root(tg_relid), tg_relid) end;
  ignored boolean;
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
  exception when others then
    -- The application's write must not fail because of this log. Without an id, servers compare whole views instead.
    begin
      insert into datum.change (rel) values (changed);
    exception when others then
      raise warning 'datum could not log a change of % (%)', tg_relid::regclass, sqlstate;
    end;
  end;
  ignored := ${RING_SQL};
  return null;
end `)};
revoke all on function ${log}() from public;
${ownerSql(table, log, installer)}${[triggersSql(table.qualified, `${log}()`), ...table.partitions.map((name) => triggersSql(name, `${log}('partition')`))].join('')}`
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
  if (owner === installer.role || !installer.superuser) return ''
  const role = quoteIdentifier(owner)
  return `alter function ${log}() owner to ${role};
grant insert on datum.change to ${role};
`
}

/** Always enabled: a bulk load as `session_replication_role = replica` changes what clients see like any other write. */
function triggersSql(qualified: string, execute: string): string {
  const always = ['insert', 'update', 'delete', 'truncate'].map(
    (event) => `alter table ${qualified} enable always trigger ${TRIGGER_PREFIX}${event};\n`,
  )
  return `create or replace trigger ${TRIGGER_PREFIX}insert after insert on ${qualified}
  referencing new table as datum_new for each statement execute function ${execute};
create or replace trigger ${TRIGGER_PREFIX}update after update on ${qualified}
  referencing old table as datum_old new table as datum_new for each statement execute function ${execute};
create or replace trigger ${TRIGGER_PREFIX}delete after delete on ${qualified}
  referencing old table as datum_old for each statement execute function ${execute};
create or replace trigger ${TRIGGER_PREFIX}truncate after truncate on ${qualified}
  for each statement execute function ${execute};
${always.join('')}`
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
