-- The demo's table and its policies: the whole of who may see and change what. Run once in the demo's database.

create table places (
  id uuid primary key default gen_random_uuid(),
  name text not null check (length(name) between 1 and 80),
  country text,
  population integer check (population >= 0),
  is_public boolean not null default false,
  org_id text not null,
  -- Whoever adds a place owns it, whatever the browser says.
  owner_id text default nullif(current_setting('datum.sub', true), ''),
  updated_at timestamptz not null default now(),
  geom geometry(Point, 4326) not null
);
create index places_geom_idx on places using gist (geom);
create index places_org_id_idx on places (org_id);

create function places_touch() returns trigger language plpgsql as $$
begin
  new.updated_at := now();
  return new;
end $$;
create trigger places_touch before update on places for each row execute function places_touch();

-- FORCE: the policies bind the table's owner as well.
alter table places enable row level security;
alter table places force row level security;

-- Every claim of the token is a setting: {"org_id": "condor", "role": "editor"} is datum.org_id and datum.role.
-- An absent claim reads as '' or NULL, and neither is an organisation's id.
create policy read_own_and_public on places for select
  using (is_public or org_id = current_setting('datum.org_id', true));

create policy insert_own on places for insert
  with check (org_id = current_setting('datum.org_id', true) and current_setting('datum.role', true) = 'editor');

create policy update_own on places for update
  using (org_id = current_setting('datum.org_id', true) and current_setting('datum.role', true) = 'editor')
  with check (org_id = current_setting('datum.org_id', true) and current_setting('datum.role', true) = 'editor');

create policy delete_own on places for delete
  using (org_id = current_setting('datum.org_id', true) and current_setting('datum.role', true) = 'editor');
