-- What datum keeps in the database it watches: one schema, `datum`. Installed and upgraded by `datum-server setup`
-- (src/db/install.ts), which replaces {postgis} by the schema PostGIS lives in. Every statement can be run again.
-- The tables are the owner's alone; the server's role gets the few rights that install.ts grants.

-- Run with a search_path of pg_catalog (short-lock.ts), since whoever installs may be a superuser; and in a schema in which
-- nobody else has put anything (schema-owner.ts).

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
-- Since version 2.
do $$ begin
  if not exists (select from pg_attribute where attrelid = 'datum.meta'::regclass and attname = 'oldest_server') then
    alter table datum.meta
      -- The oldest schema version whose servers can go on with what is installed.
      add column if not exists oldest_server integer not null default 1,
      -- Log rows of older transactions are gone.
      add column if not exists cleared_to xid8 not null default '0',
      -- When a server last saw to the log.
      add column if not exists attended_at timestamptz not null default '-infinity',
      -- What servers seal cursors with (src/sync/view-seal.ts): 244 random bits.
      add column if not exists seal_key text not null default gen_random_uuid()::text || gen_random_uuid()::text;
  end if;
end $$;

-- The tables that are watched, which are the only ones that functions of the installer look into.
create table if not exists datum.watched (
  rel regclass primary key,
  id_column name not null,
  geometry_column name
);
-- Since version 2.
do $$ begin
  if not exists (select from pg_attribute where attrelid = 'datum.watched'::regclass and attname = 'read_digest') then
    -- Of the query that the table's read function was made of: it serves those who would ask the same.
    alter table datum.watched add column read_digest text;
  end if;
end $$;

-- Emptied by Postgres when it recovers from a crash, as every unlogged table is: transactions that left no trace are
-- forgotten then and their ids given out again, so cursors from before mean nothing any more. See datum.epoch().
create unlogged table if not exists datum.incarnation (
  single boolean primary key default true check (single),
  id uuid not null default gen_random_uuid()
);

-- Without the log (somebody dropped it) nothing says what happened meanwhile: cursors from before must not be gone on from.
do $$ begin
  if to_regclass('datum.change') is null then
    delete from datum.incarnation;
  end if;
end $$;

-- The log: "this row may be different now". Never the row itself. One entry without an id means any row of the table.
-- Not in the WAL, which spares the application's writes a good part of its cost: a crash empties it, and ends the epoch.
create unlogged table if not exists datum.change (
  xid xid8 not null default pg_current_xact_id(),
  rel oid not null,
  id text,
  -- Envelopes in WGS 84 before and after; null where there was no row or it had no place. Infinite: unknown.
  old_box box,
  new_box box
);
-- In version 1 it was in the WAL.
do $$ begin
  if exists (select from pg_class where oid = 'datum.change'::regclass and relpersistence = 'p') then
    alter table datum.change set unlogged;
  end if;
end $$;
-- Not `create index if not exists`, which locks out writers before it finds that there is nothing to do.
do $$ begin
  if to_regclass('datum.change_xid') is null then
    create index change_xid on datum.change (xid);
  end if;
end $$;

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
do $$ begin
  if to_regclass('datum.batch_at') is null then
    create index batch_at on datum.batch (at);
  end if;
end $$;

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
  own text;
  reached text := '';
  relations oid[] := array[rel];
  -- Which most policies call; it is looked at with what is the table's own.
  functions oid[] := array['datum.claim(text)'::regprocedure]::oid[];
  -- What was reached in the last round.
  new_relations oid[];
  new_functions oid[];
  policies oid[];
begin
  -- One statement for what there mostly is: policies that reach nothing but the table.
  select concat(
           (select concat(c.relrowsecurity, c.relforcerowsecurity, c.relname, c.relnamespace, c.relacl)
              from pg_class c where c.oid = rel), ';',
           p.described, ';',
           -- What it is, and not when it was made: `setup` makes it again, which is no reason to compare all views.
           (select concat(f.proowner, f.prolang, f.provolatile, f.proisstrict, f.prosecdef, f.proconfig, f.prosrc, f.prosqlbody)
              from pg_proc f where f.oid = functions[1]), ';',
           -- Casts that were made later change what a value looks like as text.
           (select max(c.oid) from pg_cast c), ';',
           -- Triggers that were disabled for a while have logged nothing meanwhile.
           (select string_agg(t.oid::text || '/' || t.xmin::text, ',' order by t.oid)
              from pg_trigger t where t.tgrelid = rel and starts_with(t.tgname, 'zz_datum_')), ';',
           -- Partitions come and go with all their rows.
           (select string_agg(i.inhrelid::text, ',' order by i.inhrelid) from pg_inherits i where i.inhparent = rel), ';',
           (select string_agg(concat_ws('/', a.attnum, a.atttypid, a.atttypmod, a.attnotnull, a.attname, a.attacl), ',' order by a.attnum)
              from pg_attribute a where a.attrelid = rel and a.attnum > 0 and not a.attisdropped)),
         p.oids
    into own, policies
    from (select array_agg(q.oid) as oids, string_agg(q.oid || '/' || q.xmin, ',' order by q.oid) as described
            from pg_policy q where q.polrelid = rel) p;
  loop
    select array_agg(distinct d.refobjid) filter (where d.refclassid = 'pg_class'::regclass and d.refobjid <> all (relations)),
           array_agg(distinct d.refobjid) filter (where d.refclassid = 'pg_proc'::regclass and d.refobjid <> all (functions))
      into new_relations, new_functions
      from pg_depend d
     where d.classid = 'pg_policy'::regclass and d.objid = any (policies)
        or d.classid = 'pg_proc'::regclass and d.objid = any (new_functions);
    exit when new_relations is null and new_functions is null;
    relations := relations || new_relations;
    functions := functions || new_functions;
    reached := concat(reached,
      (select string_agg(f.oid || '/' || f.xmin, ',' order by f.oid) from pg_proc f where f.oid = any (new_functions)), ';',
      (select string_agg(concat(c.oid, '/', c.relrowsecurity, c.relkind), ',' order by c.oid) from pg_class c where c.oid = any (new_relations)), ';');
    select array_agg(p.oid), reached || coalesce(string_agg(p.oid || '/' || p.xmin, ',' order by p.oid), '')
      into policies, reached
      from pg_policy p where p.polrelid = any (new_relations);
  end loop;
  return md5(concat(own, ';', reached));
end $$;

-- Runs one query for many principal classes, each under its own claims, in one statement. As the invoker, so row level
-- security applies. Class n sets setting `names[i]` to `settings[(n-1)*k+i]`, k being how many names there are: all
-- classes set all names, so that none sees another's claims. It reads for `ids[first[n]:last[n]]`. `query` takes those
-- as $1 (text[]) and returns (id, min_x, min_y, max_x, max_y, row_json). A class whose policies raise an error gets one
-- row with its SQLSTATE (drop its other rows); the others notice nothing. A class gets rows as long as they all have no
-- more than `length_max` characters, and its first one whatever it has where there is no other class; of the rest only the
-- ids (row_json is null), to be asked for again. The last row (class 0) has the fingerprint of `rel`. `apart`: undoes whatever the policies of a class did, before
-- it goes on with the next (what was returned stays): where they are not understood they may keep in a setting, or in a
-- temporary table, what they found out about a user.
-- This one plans `query` for every class. The functions `datum.read_…` of the watched tables (src/db/read-function.ts)
-- do the same with plans that Postgres keeps; this is for tables that were altered since they were made.
create or replace function datum.read_as(
    names text[], settings text[], ids text[], first integer[], last integer[], length_max bigint, apart boolean, query text, rel oid)
  returns table (class integer, id text, min_x float8, min_y float8, max_x float8, max_y float8, row_json text, error text)
  language plpgsql volatile security invoker as $$
declare
  ignored text;
  is_read boolean;
begin
  for n in 1 .. cardinality(first) loop
    is_read := false;
    begin
      for i in 1 .. cardinality(names) loop
        ignored := set_config(names[i], settings[(n - 1) * cardinality(names) + i], true);
      end loop;
      return query execute
        'select ' || n || ', q.id, q.min_x, q.min_y, q.max_x, q.max_y,
                case when $3 and row_number() over () = 1
                       or sum(length(q.row_json)) over (rows unbounded preceding) <= $2
                     then q.row_json end,
                null::text
           from (' || query || ' offset 0) q(id, min_x, min_y, max_x, max_y, row_json)'
        using ids[first[n]:last[n]], length_max, cardinality(first) = 1;
      if apart then
        is_read := true;
        raise exception 'undone';
      end if;
    exception when others then
      if not is_read then
        class := n; id := null; row_json := null; error := sqlstate;
        return next;
      end if;
    end;
  end loop;
  for i in 1 .. cardinality(names) loop
    ignored := set_config(names[i], '', true);
  end loop;
  class := 0; id := datum.fingerprint(rel); row_json := null; error := null;
  return next;
end $$;

-- Physical addresses of the rows of a watched table whose geometry's bounding box meets one of `areas` (in the column's
-- SRID), from the spatial index and past row security: `&&` is not leakproof, so under row security Postgres would scan
-- the table. The caller reads the rows by address in the same statement (STABLE: same snapshot), where row security
-- does apply. Only for watched tables with a geometry: what else a caller could name may be a view that runs code of the
-- caller's. Where a superuser installs it belongs to a role that may do nothing else (index-role.ts), since Postgres
-- evaluates code of the table's owner while it plans: the expressions of statistics, indexes and partitions.
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

-- Which cluster, timeline and database this is: another one after a restore, a failover, in a copy. Costs more to find
-- out than all else that a look at the log does, and whatever changes it ends every session: so the session keeps it.
create or replace function datum.place() returns text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  return set_config('datum_server.place', (
    select md5(concat_ws('/', s.system_identifier, d.oid, left(pg_walfile_name(pg_current_wal_lsn()), 8)))
      from pg_control_system() s, pg_database d where d.datname = current_database()), false);
end $$;

-- What a cursor is valid with: another one in another place, after a crash, after the schema was installed anew.
create or replace function datum.epoch() returns text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from datum.incarnation) then
    insert into datum.incarnation default values on conflict do nothing;
  end if;
  -- Not joined: Postgres does not know that each has one row, and would compile (JIT) what it takes for millions.
  return left(md5(concat_ws('/', (select m.epoch from datum.meta m), (select i.id from datum.incarnation i),
                            coalesce(nullif(current_setting('datum_server.place', true), ''), datum.place()))), 12);
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
-- every commit of the cluster a lock, so it is for when somebody listens.
create or replace function datum.ring() returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  ignored boolean;
begin
  ignored := {ring};
end $$;

-- Tells every server that any row of the table may look different now, for whoever changed what policies depend on
-- (a membership table, say). Servers compare and send only differences.
create or replace function datum.refresh(rel regclass) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into datum.change (rel) values (rel::oid);
  perform datum.ring();
end $$;

-- Drops log rows and batch outcomes that are older than asked for, `rows_max` of each at most, so that it is short
-- whatever has piled up. True if there is more to drop. Waits for nobody: of several at a time one does it. Called by
-- every server once a minute (`attended`), and by datum.tidy where there is none.
create or replace function datum.prune(keep_changes interval, keep_batches interval, rows_max integer, attended boolean)
  returns boolean
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  before datum.meta;
  horizon xid8;
  cleared xid8;
  removed xid8[];
  removed_batches bigint;
begin
  select * into before from datum.meta for update skip locked;
  if not found then
    return false;
  end if;
  -- The clock and not now(): the transaction may be one of the application, and hours old.
  insert into datum.tick (at, oldest_xid)
    select clock_timestamp(), pg_snapshot_xmin(pg_current_snapshot())
     where not exists (select from datum.tick t where t.at > clock_timestamp() - interval '50 seconds');
  horizon := greatest(before.pruned_before, (
    select t.oldest_xid from datum.tick t where t.at < clock_timestamp() - keep_changes order by t.oldest_xid desc limit 1));
  -- From where the last one came to, so that it does not wade through the dead entries that the index still has.
  with gone as (
    delete from datum.change c where c.ctid = any (array(
      select d.ctid from datum.change d
       where d.xid >= before.cleared_to and d.xid < horizon order by d.xid limit rows_max))
    returning c.xid
  )
  select array_agg(g.xid order by g.xid) into removed from gone g;
  cleared := case when cardinality(removed) >= rows_max then removed[cardinality(removed)] else horizon end;
  if horizon > before.pruned_before or cleared > before.cleared_to or attended then
    update datum.meta m
       set pruned_before = horizon, cleared_to = cleared,
           attended_at = case when attended then clock_timestamp() else m.attended_at end;
  end if;
  delete from datum.tick t where t.oldest_xid < horizon;
  delete from datum.batch b where b.ctid = any (array(
    select e.ctid from datum.batch e where e.at < clock_timestamp() - keep_batches order by e.at limit rows_max));
  get diagnostics removed_batches = row_count;
  return cleared < horizon or removed_batches >= rows_max;
end $$;

-- The same for whoever calls it by hand or on a schedule, in one go.
create or replace function datum.prune(keep_changes interval, keep_batches interval) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform datum.prune(keep_changes, keep_batches, 1000000, true);
end $$;

-- Called by the change triggers for one in a thousand rows or so that they log: where no server has seen to the log for
-- ten minutes, drops more than is being added, so that the log holds what was written within an hour, and not what was
-- written since the last server went away. Not from serializable transactions, which could fail at their commit for
-- what is read here. Never raises an error.
create or replace function datum.tidy(logged bigint) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  if current_setting('transaction_isolation') = 'serializable'
    or exists (select from datum.meta m where m.attended_at > clock_timestamp() - interval '10 minutes') then
    return;
  end if;
  perform datum.prune('1 hour', '1 day', least(2000 + 2 * logged, 1000000)::integer, false);
exception when others then
  -- A repeatable read transaction that is older than the last who did this, say. The next one will do it.
  null;
end $$;

revoke all on function
  datum.fingerprint(oid), datum.read_as(text[], text[], text[], integer[], integer[], bigint, boolean, text, oid), datum.candidates(regclass, {postgis}.geometry[]),
  datum.epoch(), datum.place(),
  datum.begin_batch(text, uuid), datum.finish_batch(text, uuid, json), datum.ring(), datum.refresh(regclass),
  datum.prune(interval, interval), datum.prune(interval, interval, integer, boolean), datum.tidy(bigint)
  from public;
