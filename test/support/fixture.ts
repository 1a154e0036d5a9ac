/**
 * A world for one test: a database with tables and policies, datum installed in it, and a server in this process that
 * serves it. Tests are black-box: they write SQL as an application does and speak the protocol as a client does.
 */
import type { Sql } from 'postgres'
import type { AuthConfig, Config } from '../../src/config/config.ts'
import type { Database } from '../../src/db/database.ts'
import { createLog } from '../../src/observe/log.ts'
import { type RunningServer, type ServerParts, startServer } from '../../src/server.ts'
import type { Bbox, Id } from '../../src/wire/messages.ts'
import { differences } from './differences.ts'
import { features, type TableSpec, tableConfig } from './table-spec.ts'
import { type Claims, mintToken, TEST_SECRET } from './token.ts'
import { type ComparableRow, type TruthQuery, truth } from './truth.ts'
import { type Allowed, GIVE_UP_MS, type View, WireClient, type WireClientOptions } from './wire-client.ts'
import { makeTables, openWorldDatabase, type WorldDatabase } from './world-database.ts'

export interface WorldOptions {
  /** Default: one `features()` table. */
  readonly tables?: readonly TableSpec[]
  /** Changes to the default, HS256 with the tests' secret. null: a server without `auth:`. */
  readonly auth?: Partial<AuthConfig> | null
  readonly config?: Partial<Config>
  /** Run as superuser before the tables are made: enums, functions, domains. */
  readonly before?: string
  /** False: make tables and policies, but leave datum uninstalled and start no server. Default true. */
  readonly start?: boolean
}

/**
 * How long a test may take before it counts as hung: a safety net and not a measure, since build machines are slow. Each
 * file sets it, because `setDefaultTimeout` holds for the file that calls it only.
 */
export const TEST_TIMEOUT_MS = 60_000

/** Everything on the globe. */
export const EARTH: Bbox = [-180, -90, 180, 90]
/** A box around Zurich, which most tests subscribe to. */
export const ZURICH: Bbox = [8, 47, 9, 48]

/** Values of a row to write as the application. */
interface PutRow {
  readonly id?: string | number
  readonly org?: string | null
  readonly name?: string | null
  readonly size?: number | null
  /** Longitude and latitude; null for no geometry. Default: in the middle of {@link ZURICH}. */
  readonly at?: readonly [number, number] | null
  readonly table?: string
}

export type ConnectOptions = WireClientOptions & { readonly server?: RunningServer }
interface BarrierOptions {
  readonly sub?: string
  readonly at?: readonly [number, number]
}

export async function createWorld(options: WorldOptions = {}): Promise<World> {
  const tables = options.tables ?? [features()]
  const start = options.start ?? true
  const database = await openWorldDatabase(tables)
  try {
    await makeTables(database.admin, tables, { before: options.before ?? '', installed: start })
    const world = new World(database, tables, makeConfig(tables, options, database.appUrl))
    if (start) await world.addServer()
    return world
  } catch (error) {
    await database.drop()
    throw error
  }
}

function makeConfig(tables: readonly TableSpec[], options: WorldOptions, databaseUrl: string | null): Config {
  const auth: AuthConfig = {
    algorithm: 'HS256',
    key: { kind: 'secret', secret: TEST_SECRET },
    issuers: null,
    audiences: null,
    clockToleranceSeconds: 0,
    enforceExpiry: false,
    ...options.auth,
  }
  return {
    port: 0,
    host: '127.0.0.1',
    allowedOrigins: null,
    rateLimit: 0,
    connectionsPerIp: 0,
    unauthenticatedPerIp: 0,
    unauthenticated: 0,
    heldRows: 0,
    trustedProxies: [],
    tables: tables.map(tableConfig),
    auth: options.auth === null ? null : auth,
    databaseUrl,
    embedded: { dataDir: '', initSql: null },
    logLevel: 'error',
    ...options.config,
  }
}

export class World {
  readonly kind: 'postgres' | 'embedded'
  /** A superuser's connection: what it writes is what "the application" writes. */
  readonly admin: Sql
  readonly appUrl: string | null
  readonly adminUrl: string | null
  readonly config: Config
  readonly #database: WorldDatabase
  readonly #tables: readonly TableSpec[]
  readonly #servers: { server: RunningServer; database: Database }[] = []
  readonly #clients: WireClient[] = []

  constructor(database: WorldDatabase, tables: readonly TableSpec[], config: Config) {
    this.kind = database.kind
    this.admin = database.admin
    this.appUrl = database.appUrl
    this.adminUrl = database.adminUrl
    this.config = config
    this.#database = database
    this.#tables = tables
  }

  /** The first server. */
  get server(): RunningServer {
    if (!this.#servers[0]) throw new Error('this world has no server')
    return this.#servers[0].server
  }

  /** Starts another server on the same database: on real Postgres with its own connections. */
  async addServer(parts: Partial<ServerParts> = {}): Promise<RunningServer> {
    const database = parts.database ?? this.#database.openDatabase()
    const log = createLog(this.config.logLevel)
    const server = await startServer({ config: this.config, database, log, ...parts })
    this.#servers.push({ server, database })
    return server
  }

  /** Opens the database as a server would, for tests of what lies below the server. Closed with the world. */
  openDatabase(): Database {
    return this.#database.openDatabase()
  }

  /** A socket that has not authenticated. */
  async open({ server = this.server, ...options }: ConnectOptions = {}): Promise<WireClient> {
    const url = `${server.url.replace(/^http/, 'ws')}/ws`
    const client = await WireClient.open(url, { authRequired: this.config.auth !== null, ...options })
    this.#clients.push(client)
    return client
  }

  /** A socket that has authenticated with a token of these claims. */
  async connect(claims: Claims, options: ConnectOptions = {}): Promise<WireClient> {
    const client = await this.open(options)
    await client.authenticate(await mintToken(claims))
    return client
  }

  /** As {@link connect}, with a subscription to a box (default Zurich) of the first table, initial state complete. */
  async watch(
    claims: Claims,
    options: ConnectOptions & { bbox?: Bbox } = {},
  ): Promise<{ client: WireClient; view: View }> {
    const { bbox = ZURICH, ...rest } = options
    const client = await this.connect(claims, rest)
    const box = this.#spec().geometryColumn ? { bbox } : {}
    return { client, view: await client.subscribe(box) }
  }

  /** Writes a row as the application; returns its id as text. */
  async put(row: PutRow): Promise<Id> {
    const spec = this.#spec(row.table)
    const { id, org = 'a', name = null, size = null, at = [8.5, 47.5] } = row
    const values: [column: string, sql: string][] = [
      ['org_id', literal(org)],
      ['name', literal(name)],
      ['size', literal(size)],
    ]
    if (id !== undefined) values.push(['id', literal(id)])
    if (spec.geometryColumn)
      values.push([spec.geometryColumn, at === null ? 'null' : this.pointSql(at, row.table)])
    const [columns, expressions] = [values.map(([column]) => column), values.map(([, sql]) => sql)]
    const [made] = await this.admin.unsafe(
      `insert into ${spec.name} (${columns.join(', ')}) values (${expressions.join(', ')}) returning id::text`,
    )
    return made!.id as Id
  }

  /** SQL of a point of the table's geometry type. */
  pointSql([x, y]: readonly [number, number], table?: string): string {
    return (this.#spec(table).pointSql ?? ((x, y) => `st_setsrid(st_makepoint(${x}, ${y}), 4326)`))(x, y)
  }

  /** What `claims` may see, by the tests' own SQL; in Zurich unless told otherwise. */
  truth(claims: Claims, query: Partial<TruthQuery> = {}): Promise<Map<Id, ComparableRow>> {
    const { name: table, idColumn = 'id', geometryColumn = null } = this.#spec(query.table)
    return truth(this.admin, claims, { table, idColumn, geometryColumn, bbox: ZURICH, ...query })
  }

  /**
   * Waits until the view equals the truth; rejects with the differences if it never does. The truth is looked up again
   * while they differ, since writes of sockets that are gone may still be under way.
   */
  async untilTrue(client: WireClient, view: View, claims: Claims, bbox: Bbox = ZURICH): Promise<void> {
    const table = view.table?.name
    const geometryColumn = view.table?.geometryColumn ?? null
    const giveUpAt = Date.now() + GIVE_UP_MS
    for (;;) {
      const expected = await this.truth(claims, { ...(table !== undefined && { table }), bbox })
      const found = differences(expected, view.rows, geometryColumn)
      if (found.length === 0) return
      if (Date.now() > giveUpAt) {
        const list = found.slice(0, 10).join('\n  ')
        throw new Error(`${view.sub} never equalled the truth\ndifferences:\n  ${list}\n${client.describe()}`)
      }
      await client.untilFrame()
    }
  }

  /**
   * Waits until whatever was committed before has reached a subscription, by writing a row of the claims' `org_id`,
   * waiting for it, and waiting for its deletion. So "nothing else came" is shown without a sleep.
   */
  async barrier(
    client: WireClient,
    claims: Claims,
    { sub = 's', at = [8.5, 47.5] }: BarrierOptions = {},
  ): Promise<void> {
    const view = client.view(sub)
    const table = view.table!.name
    const id = await this.put({ org: String(claims.org_id), name: 'barrier', at, table })
    await client.until(() => view.rows.has(id), `the barrier's row ${id} is in ${sub}`)
    await this.admin.unsafe(`delete from ${table} where id = ${literal(id)}`)
    await client.until(() => !view.rows.has(id), `the barrier's row ${id} is gone from ${sub}`)
  }

  /** Stops servers, drops sockets and database, and throws if a client saw a rule broken and did not say so yet. */
  async close(): Promise<void> {
    const violations = this.#clients.flatMap((client) => (client.violationsReported ? [] : client.violations))
    for (const client of this.#clients) client.kill()
    for (const { server } of this.#servers) await server.stop()
    await this.#database.drop()
    if (violations.length > 0) throw new Error(`rules broken: ${violations.join('; ')}`)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #spec(name?: string): TableSpec {
    const spec = name === undefined ? this.#tables[0] : this.#tables.find((table) => table.name === name)
    if (!spec) throw new Error(`this world has no table ${name}`)
    return spec
  }
}

function literal(value: string | number | null): string {
  if (value === null) return 'null'
  return typeof value === 'number' ? String(value) : `'${value.replaceAll("'", "''")}'`
}

/** Only rows with this `org_id` may reach the client. */
export const onlyOrg =
  (orgId: string): Allowed =>
  (row) =>
    row.org_id === orgId

/** A GeoJSON point, as the wire has it. */
export function point(x: number, y: number): { type: 'Point'; coordinates: [number, number] } {
  return { type: 'Point', coordinates: [x, y] }
}
