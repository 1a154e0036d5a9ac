/**
 * What a new embedded database gets beside PostGIS: the restricted role that the server works as, and the tables, the
 * operator's or a plain `features`. Run once by `embedded.ts`, as the superuser.
 */
import type { Sql } from 'postgres'
import { OperatorError } from '../operator-error.ts'

/** The role of every statement that is not `asOwner`. RLS binds it, as it would in a database of one's own. */
export const EMBEDDED_ROLE = 'datum_app'

/** The table of the quick start, for those who just want to look: no policies, so everybody shares all rows. */
const DEFAULT_FEATURES = `
create table features (
  id uuid primary key default gen_random_uuid(),
  name text,
  kind text,
  properties jsonb not null default '{}',
  owner_id text,
  org_id text,
  updated_at timestamptz not null default now(),
  geom geometry(Geometry, 4326)
);
create index features_geom_idx on features using gist (geom);
create index features_org_id_idx on features (org_id);
create function features_touch() returns trigger language plpgsql as $$
begin
  new.updated_at := now();
  return new;
end $$;
create trigger features_touch before update on features for each row execute function features_touch();
`

/** Throws an `OperatorError` with Postgres' own words if the operator's SQL fails. */
export async function initialise(sql: Sql, role: string, initSql: string | null): Promise<void> {
  // NOLOGIN: the session is this process' own and takes the role with SET ROLE.
  await sql`create role ${sql(role)} nologin nosuperuser nocreatedb nocreaterole nobypassrls`
  await sql`grant usage on schema public to ${sql(role)}`
  // Before the operator's SQL, so that this can revoke what it finds too much.
  await sql`alter default privileges in schema public
    grant select, insert, update, delete on tables to ${sql(role)}`
  await sql`alter default privileges in schema public grant usage, select on sequences to ${sql(role)}`
  try {
    await sql.unsafe(initSql ?? DEFAULT_FEATURES)
  } catch (cause) {
    if (initSql === null) throw cause
    throw new OperatorError(
      `The SQL that makes the embedded database failed: ${(cause as Error).message}\n` +
        'Nothing was kept. Mend it and start again.',
      2,
    )
  }
}
