/** Code that policies of tests call: helpers in every language and form, a table of memberships, views, an operator. */

/** Needs `datum.claim`, so it is run after datum was installed. For one database, once. */
export const POLICY_CODE = `
  create table members (org_id text, user_id text, kind text);
  insert into members values ('a', 'a', 'a'), ('a', 'b', 'b'), ('b', 'b', 'a'), ('b', 'x', 'x');
  grant select on members to datum_app;
  create table closed_members (org_id text, user_id text, kind text);
  insert into closed_members select * from members;
  grant select on closed_members to datum_app;
  alter table closed_members enable row level security;
  create policy by_kind on closed_members for select using (kind = datum.claim('c'));
  create policy for_nobody on closed_members to postgres using (user_id = current_setting('datum.d', true));
  create table murky_members (org_id text, user_id text);
  insert into murky_members select org_id, user_id from members;
  grant select on murky_members to datum_app;
  alter table murky_members enable row level security;
  create policy by_name on murky_members using (user_id = current_setting(concat('datum.', 'c'), true));
  create view membership_view with (security_barrier = true) as select org_id, user_id from members;
  grant select on membership_view to datum_app;
  create view setting_view as select current_setting('datum.b', true) as value;
  grant select on setting_view to datum_app;

  create function returned_a() returns text language sql stable return current_setting('datum.a', true);
  create function returned_claim(which text) returns text language sql stable return current_setting('datum.' || which, true);
  create function twice_returned(which text) returns text language sql stable return returned_claim(which);
  create function atomic_orgs(who text) returns setof text language sql stable security definer set search_path = ''
    begin atomic select org_id from public.members where user_id = who; end;
  create function atomic_closed_orgs() returns setof text language sql stable
    begin atomic select org_id from closed_members where user_id = current_setting('datum.a', true); end;
  create function returned_payload() returns jsonb language sql stable
    return nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  create function strict_payload(why text) returns jsonb language sql stable strict
    return nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  create function returned_checked() returns checked language sql stable return 'b'::text;
  create function returned_default(value text default current_setting('datum.b', true)) returns text
    language sql stable return value;
  create function returned_with_setting() returns text language sql stable set datum.b = 'a' return current_setting('datum.b', true);
  create function returned_into(inout value text) language sql stable return coalesce(value, current_setting('datum.b', true));
  create function quoted_a() returns text language sql stable as $$ select current_setting('datum.a', true) $$;
  create function quoted_nothing() returns text language sql immutable as $$ select 'a'::text $$;
  create function plpgsql_b() returns text language plpgsql stable as $$ begin return current_setting('datum.b', true); end $$;
  create function calls_plpgsql() returns text language sql stable return plpgsql_b();
  create function lower(value text, other integer) returns text language plpgsql immutable as $$ begin return current_setting('datum.b', true); end $$;
  create function is_b(a text, b integer) returns boolean language plpgsql stable as $$ begin return a = plpgsql_b(); end $$;
  create operator =~=~ (leftarg = text, rightarg = integer, function = is_b);
  create function returned_state(s text, v text) returns text language plpgsql stable as $$ begin return plpgsql_b(); end $$;
  create aggregate any_b(text) (sfunc = returned_state, stype = text);
`

/** Types whose comparing or casting runs code of the application. Run first, also where all of it was made before. */
export const POLICY_TYPES = `
  drop operator if exists =~=~ (text, integer);
  drop view if exists membership_view, setting_view cascade;
  drop table if exists members, closed_members, murky_members cascade;
  drop aggregate if exists any_b(text);
  drop function if exists returned_a, returned_claim, twice_returned, atomic_orgs, atomic_closed_orgs, returned_payload, strict_payload,
    returned_checked,
    returned_default, returned_with_setting, returned_into, quoted_a, quoted_nothing, calls_plpgsql, is_b, returned_state,
    plpgsql_b, lower(text, integer), called_immutable, returned_immutable, calls_immutable cascade;
  drop domain if exists checked, unchecked;
  drop type if exists temper, pair cascade;
  create type temper as enum ('a', 'b');
  create domain checked as text check (value <> coalesce(current_setting('datum.b', true), ''));
  create domain unchecked as text;
  create type pair as (one text, two text);
`
