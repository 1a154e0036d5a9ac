-- What datum keeps in the database it watches: one schema, `datum`. Installed and upgraded by `datum-server setup`
-- (src/db/install.ts), which replaces {postgis} by the schema PostGIS lives in. Every statement can be run again.
-- The tables are the owner's alone; the server's role gets the few rights that install.ts grants.

-- For the rest of the transaction. Whoever installs may be a superuser: a function or an operator that somebody made in
-- `public` must not be taken for the built-in one.
set local search_path = pg_catalog, pg_temp;

create schema if not exists datum;
-- Policies call datum.claim() as whichever role queries the table, so everybody may look a name up here.
grant usage on schema datum to public;

create table if not exists datum.meta (
  single boolean primary key default true check (single),
  version integer not null,
  -- Made anew in every database, so that a cursor from another one is recognised.
  epoch uuid not null default gen_random_uuid(),
  -- Log rows of older transactions may be gone: a cursor that reaches back further cannot be resumed.
  pruned_before xid8 not null default '0'
);

-- The tables that are watched, which are the only ones that functions of the installer look into.
create table if not exists datum.watched (
  rel regclass primary key,
  id_column name not null,
  geometry_column name
);

-- Emptied by Postgres when it recovers from a crash, as every unlogged table is: transactions that left no trace are
-- forgotten then and their ids given out again, so cursors from before mean nothing any more. See datum.epoch().
create unlogged table if not exists datum.incarnation (
  single boolean primary key default true check (single),
  id uuid not null default gen_random_uuid()
);

-- The log: "this row may be different now". Never the row itself. One entry without an id means any row of the table.
create table if not exists datum.change (
  xid xid8 not null default pg_current_xact_id(),
  rel oid not null,
  id text,
  -- Envelopes in WGS 84 before and after; null where there was no row or it had no place. Infinite: unknown.
  old_box box,
  new_box box
);
create index if not exists change_xid on datum.change (xid);

-- Maps wall time to transaction ids, which is what the log is pruned by.
create table if not exists datum.tick (
  at timestamptz not null default now(),
  -- Every transaction before this one had ended by then.
  oldest_xid xid8 not null
);

-- Outcomes of batches, so that one sent twice is applied once. `subject` keeps users apart.
create table if not exists datum.batch (
  subject text not null,
  id uuid not null,
  at timestamptz not null default now(),
  xid xid8 not null default pg_current_xact_id(),
  -- json and not jsonb: what is answered again is answered as the first time, letter by letter.
  outcome json,
  primary key (subject, id)
);
create index if not exists batch_at on datum.batch (at);

-- A claim of the current user as text, or NULL if the token has none. Use it in policies: unlike current_setting(),
-- it never reads '' for an absent claim, which `::uuid` would turn into an error.
create or replace function datum.claim(name text) returns text
  language sql stable parallel safe
  return nullif(current_setting('datum.' || name, true), '');

-- A geometry in WGS 84, or NULL if it cannot be transformed: one bad row must not fail the statement that reads many.
-- One that does not say its SRID is taken to be in WGS 84 already.
create or replace function datum.to_wgs84(geometry {postgis}.geometry) returns {postgis}.geometry
  language plpgsql immutable strict parallel safe as $$
begin
  if {postgis}.st_srid(geometry) = 0 then
    return {postgis}.st_setsrid(geometry, 4326);
  end if;
  return {postgis}.st_transform(geometry, 4326);
exception when others then
  return null;
end $$;

-- Changes whenever the table's columns, grants, policies, row security or change triggers do, or other code that its
-- policies can reach: functions, tables that they look into, and those tables' policies (src/db/policies.ts draws its
-- conclusions from these). What was planned with other policies must not be sent, so readers compare this after they
-- have read (the table is locked against DDL by then). In PL/pgSQL, which keeps its plans: readers ask often.
create or replace function datum.fingerprint(rel oid) returns text
  language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  reached text := '';
  relations oid[] := array[rel];
  -- Which most policies call; it is looked at below.
  functions oid[] := array['datum.claim(text)'::regprocedure]::oid[];
  -- What was reached in the last round.
  new_relations oid[] := relations;
  new_functions oid[] := '{}';
  new_policies oid[];
begin
  loop
    new_policies := '{}';
    if new_relations <> '{}' then
      select array_agg(p.oid), reached || coalesce(string_agg(p.oid || '/' || p.xmin, ',' order by p.oid), '')
        into new_policies, reached
        from pg_policy p where p.polrelid = any (new_relations);
    end if;
    select coalesce(array_agg(distinct d.refobjid) filter (where d.refclassid = 'pg_class'::regclass and d.refobjid <> all (relations)), '{}'),
           coalesce(array_agg(distinct d.refobjid) filter (where d.refclassid = 'pg_proc'::regclass and d.refobjid <> all (functions)), '{}')
      into new_relations, new_functions
      from (select u.refclassid, u.refobjid from pg_depend u where u.classid = 'pg_policy'::regclass and u.objid = any (new_policies)
            union all
            select u.refclassid, u.refobjid from pg_depend u where u.classid = 'pg_proc'::regclass and u.objid = any (new_functions)) d;
    exit when new_relations = '{}' and new_functions = '{}';
    relations := relations || new_relations;
    functions := functions || new_functions;
    reached := concat(reached,
      (select string_agg(f.oid || '/' || f.xmin, ',' order by f.oid) from pg_proc f where f.oid = any (new_functions)), ';',
      (select string_agg(concat(c.oid, '/', c.relrowsecurity, c.relkind), ',' order by c.oid) from pg_class c where c.oid = any (new_relations)), ';');
  end loop;
  return md5(concat(reached, ';',
    (select f.xmin from pg_proc f where f.oid = 'datum.claim(text)'::regprocedure), ';',
    (select concat(c.relrowsecurity, c.relforcerowsecurity, c.relname, c.relnamespace, c.relacl)
       from pg_class c where c.oid = rel), ';',
    -- Casts that were made later change what a value looks like as text.
    (select max(c.oid) from pg_cast c), ';',
    -- Triggers that were disabled for a while have logged nothing meanwhile.
    (select string_agg(t.oid::text || '/' || t.xmin::text, ',' order by t.oid)
       from pg_trigger t where t.tgrelid = rel and starts_with(t.tgname, 'zz_datum_')), ';',
    (select string_agg(a.attnum::text || '/' || a.atttypid::text || '/' || a.atttypmod::text || '/' || a.attnotnull::text || '/' || a.attname || coalesce(a.attacl::text, ''), ',' order by a.attnum)
       from pg_attribute a where a.attrelid = rel and a.attnum > 0 and not a.attisdropped)));
end $$;

-- Runs one query for many principal classes, each under its own claims, in one statement. As the invoker, so row
-- level security applies. `classes` is [{"settings": {name: value}, "ids": [text]}]; `query` takes the ids as $1
-- (text[]) and returns (id, min_x, min_y, max_x, max_y, row_json). A class whose policies raise an error gets one row with
-- its SQLSTATE (drop its other rows); the others notice nothing. A class gets its first row, and others as long as they
-- all have no more than `length_max` characters; of the rest only the ids (row_json is null), to be asked for again. The
-- last row (class -1) has the fingerprint of `rel`.
create or replace function datum.read_as(classes jsonb, query text, rel oid, length_max bigint)
  returns table (class integer, id text, min_x float8, min_y float8, max_x float8, max_y float8, row_json text, error text)
  language plpgsql volatile security invoker as $$
declare
  entry record;
  -- Settings of earlier classes must not be seen by later ones.
  used_names text[] := '{}';
begin
  for entry in select (e.ordinality - 1)::integer as n, e.value from jsonb_array_elements(classes) with ordinality e loop
    begin
      perform set_config(u.name, '', true) from unnest(used_names) u(name);
      used_names := used_names || array(select jsonb_object_keys(entry.value -> 'settings'));
      perform set_config(s.key, s.value, true) from jsonb_each_text(entry.value -> 'settings') s;
      return query execute
        'select ' || entry.n || ', q.id, q.min_x, q.min_y, q.max_x, q.max_y,
                case when row_number() over () = 1 or sum(length(q.row_json)) over (rows unbounded preceding) <= $2
                     then q.row_json end,
                null::text
           from (' || query || ') q(id, min_x, min_y, max_x, max_y, row_json)'
        using array(select jsonb_array_elements_text(entry.value -> 'ids')), length_max;
    exception when others then
      class := entry.n; id := null; row_json := null; error := sqlstate;
      return next;
    end;
  end loop;
  perform set_config(u.name, '', true) from unnest(used_names) u(name);
  class := -1; id := datum.fingerprint(rel); row_json := null; error := null;
  return next;
end $$;

-- Physical addresses of the rows of a watched table whose geometry's bounding box meets one of `areas` (in the column's
-- SRID), from the spatial index and past row security: `&&` is not leakproof, so under row security Postgres would scan
-- the table. The caller reads the rows by address in the same statement (STABLE: same snapshot), where row security
-- does apply. Only for watched tables with a geometry, since this runs as the installer: what else a caller could name
-- may be a view that runs code of the caller's.
create or replace function datum.candidates(watched_table regclass, areas {postgis}.geometry[]) returns tid[]
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
  -- PostGIS's own type only (or a domain of it): another would bring casts and operators of the table's owner, and a
  -- table that was made a view, its rule.
  column_name name := (
    select w.geometry_column
      from datum.watched w
      join pg_class c on c.oid = w.rel and c.relkind in ('r', 'p')
      join pg_attribute a on a.attrelid = w.rel and a.attname = w.geometry_column and not a.attisdropped
      join pg_type t on t.oid = a.atttypid
     where w.rel = watched_table and pg_typeof(null::{postgis}.geometry) in (t.oid, t.typbasetype));
  found tid[];
begin
  if column_name is null then
    raise exception 'the table is not watched' using errcode = '42501';
  end if;
  execute format(
    'select array_agg(t.ctid) from unnest($1) wanted(area) join %s t on t.%I operator({postgis}.&&) wanted.area',
    watched_table, column_name
  ) into found using areas;
  return coalesce(found, '{}');
end $$;

-- What a cursor is valid with: another one after a crash, a restore, a failover (another timeline), in a copy.
create or replace function datum.epoch() returns text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from datum.incarnation) then
    insert into datum.incarnation default values on conflict do nothing;
  end if;
  return (
    select left(md5(concat_ws('/', m.epoch, i.id, s.system_identifier, d.oid,
                              left(pg_walfile_name(pg_current_wal_lsn()), 8))), 12)
      from datum.meta m, datum.incarnation i, pg_control_system() s, pg_database d
     where d.datname = current_database());
end $$;

-- Takes a batch in hand. NULL: it is new, go on. Otherwise its recorded outcome and transaction: answer with that. A
-- second attempt that overlaps the first waits here for the first to end.
create or replace function datum.begin_batch(batch_subject text, batch_id uuid) returns json
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into datum.batch (subject, id) values (batch_subject, batch_id) on conflict do nothing;
  if found then
    return null;
  end if;
  return (select json_build_object('outcome', b.outcome, 'xid', b.xid::text)
            from datum.batch b where b.subject = batch_subject and b.id = batch_id);
end $$;

create or replace function datum.finish_batch(batch_subject text, batch_id uuid, batch_outcome json) returns void
  language sql volatile security definer set search_path = pg_catalog, pg_temp
  begin atomic
    update datum.batch set outcome = batch_outcome where subject = batch_subject and id = batch_id;
  end;

-- Wakes the servers, if there is one that sleeps: a sleeping server holds the lock (src/db/doorbell.ts). NOTIFY costs
-- every commit of the cluster a lock, so it is for when somebody listens. One expression, so that no cancellation comes
-- between taking the lock and giving it back. `datum_server.ring` is for a session that is writer and server in one.
-- Where two-phase commit is enabled nothing rings, since a transaction that did cannot be prepared; servers poll there.
create or replace function datum.ring() returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  if current_setting('max_prepared_transactions')::integer > 0 then
    return;
  end if;
  -- "datumbel" as a number.
  perform case
    when coalesce(current_setting('datum_server.ring', true), '') <> 'always' and pg_try_advisory_lock(7233190524228887916)
      then pg_advisory_unlock(7233190524228887916) is null
    else pg_notify('datum', '') is null
  end;
end $$;

-- Tells every server that any row of the table may look different now, for whoever changed what policies depend on
-- (a membership table, say). Servers compare and send only differences.
create or replace function datum.refresh(rel regclass) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into datum.change (rel) values (rel::oid);
  perform datum.ring();
end $$;

-- Drops log rows and batch outcomes older than asked for. Called by every server now and then; one at a time does it.
create or replace function datum.prune(keep_changes interval, keep_batches interval) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  horizon xid8;
begin
  -- "datumpru" as a number.
  if not pg_try_advisory_xact_lock(7233190524229808757) then
    return;
  end if;
  insert into datum.tick (oldest_xid) values (pg_snapshot_xmin(pg_current_snapshot()));
  select max(t.oldest_xid) into horizon from datum.tick t where t.at < now() - keep_changes;
  if horizon is not null then
    delete from datum.change c where c.xid < horizon;
    update datum.meta set pruned_before = horizon where pruned_before < horizon;
    delete from datum.tick t where t.oldest_xid < horizon;
  end if;
  delete from datum.batch b where b.at < now() - keep_batches;
end $$;

revoke all on function
  datum.fingerprint(oid), datum.read_as(jsonb, text, oid, bigint), datum.candidates(regclass, {postgis}.geometry[]),
  datum.epoch(),
  datum.begin_batch(text, uuid), datum.finish_batch(text, uuid, json), datum.ring(), datum.refresh(regclass),
  datum.prune(interval, interval)
  from public;
