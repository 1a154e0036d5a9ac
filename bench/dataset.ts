/** Databases to measure on: the table `features`, its rows, its policy, and live sync installed or not. */
import type { Sql } from 'postgres'
import { install } from '../src/db/install.ts'
import { quietSql } from '../test/support/postgres.ts'
import type { BenchCluster } from './cluster.ts'

interface DatasetOptions {
  readonly rows: number
  readonly tenants: number
  /** Default: rows belong to the tenant that the claim `org_id` names. */
  readonly policy?: string
  /** SQL of a row's point from its number `n`. Default: within {@link BOX}, spread evenly. */
  readonly point?: string
  /** Columns to do without, where what is measured does not depend on how long a row is. */
  readonly without?: readonly string[]
  /** Whether live sync is installed. Default: yes. */
  readonly watched?: boolean
}

export interface Dataset extends AsyncDisposable {
  readonly adminUrl: string
  readonly appUrl: string
  readonly admin: Sql
}

/** Holds every row whose point is the default one. */
export const BOX = [10, 45, 11, 46] as const

/** The `org_id` of the tenant with this number, as SQL and as text. */
const TENANT_SQL = (n: string) => `('00000000-0000-4000-8000-' || lpad((${n})::text, 12, '0'))::uuid`
export const tenantId = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`

const TENANT_POLICY = `org_id = current_setting('datum.org_id', true)::uuid`

/**
 * A row is about 330 bytes of JSON. Row `n` (from 0) belongs to tenant `n % tenants` and to the user `user-<n>`. `rev`
 * and `at` are what the benchmark's updates write.
 */
export async function createDataset(cluster: BenchCluster, options: DatasetOptions): Promise<Dataset> {
  const { rows, tenants, policy = TENANT_POLICY, without = [], watched = true } = options
  const { point = 'st_makepoint(10 + (n % 997) / 997.0, 45 + (n / 997 % 997) / 997.0)' } = options
  const name = await cluster.createDatabase()
  const admin = quietSql(cluster.adminUrl(name))
  await admin.unsafe(`
    create extension pg_stat_statements;
    create table features (
      id uuid primary key,
      n integer not null,
      org_id uuid not null,
      owner text not null,
      name text not null,
      note text not null,
      rev integer not null default -1,
      at double precision not null default 0,
      geom geometry(Point, 4326)
    );
    insert into features (id, n, org_id, owner, name, note, geom)
    select md5(n::text)::uuid, n, ${TENANT_SQL(`n % ${tenants}`)}, 'user-' || n, 'Place ' || n,
           'A place with a note of about the length that notes have.', st_setsrid(${point}, 4326)
      from generate_series(0, ${rows - 1}) n;
    create index on features (n);
    create index on features using gist (geom);
    grant select, insert, update, delete on features to datum_app;
    alter table features enable row level security;
    alter table features force row level security;
  `)
  for (const column of without) await admin.unsafe(`alter table features drop column ${column}`)
  const tables = [{ schema: 'public', name: 'features', idColumn: 'id', geometryColumn: 'geom' }]
  if (watched) await install(admin, { tables, role: 'datum_app' })
  await admin.unsafe(`create policy bench on features using (${policy})`)
  await admin.unsafe('vacuum analyze features')
  return {
    adminUrl: cluster.adminUrl(name),
    appUrl: cluster.appUrl(name),
    admin,
    async [Symbol.asyncDispose]() {
      await admin.end({ timeout: 1 })
      await cluster.dropDatabase(name)
    },
  }
}
