/**
 * A throw-away PostGIS cluster for the tests of one process, made on first use and gone with the process however it
 * ends. `fixture.ts` makes databases in it; `preload.ts` stops it when the last test is done.
 */
import { chown, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres, { type Sql } from 'postgres'

export interface Cluster {
  /** URL of a superuser for the named database. */
  adminUrl(database: string): string
  /** URL of the restricted role `datum_app`, which is bound by Row Level Security, for the named database. */
  appUrl(database: string): string
  /** Makes an empty database with PostGIS from the template; returns its name. */
  createDatabase(): Promise<string>
  dropDatabase(name: string): Promise<void>
  stop(): Promise<void>
}

/** The role that the server connects as, named as the authentication guide names it. */
export const APP_ROLE = 'datum_app'
const APP_PASSWORD = 'datum_app_of_a_test'

/**
 * Initialises and runs a cluster, then stops it when standard input ends: the pipe closes when the tests' process
 * does, be it by a crash or SIGKILL, so no cluster outlives its tests.
 */
const RUN_CLUSTER = `
trap '' INT
"$BIN/initdb" -D "$DIR/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$DIR/log" 2>&1 || { cat "$DIR/log" >&2; exit 1; }
"$BIN/postgres" -D "$DIR/data" -p "$PORT" -k "$DIR" -c listen_addresses=127.0.0.1 -c max_connections=300 \
  -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c shared_buffers=64MB -c jit=off \
  >>"$DIR/log" 2>&1 &
cat >/dev/null
"$BIN/pg_ctl" -D "$DIR/data" -m immediate stop >/dev/null 2>&1
rm -rf "$DIR"
`

/** The folder of the newest installed PostgreSQL that has PostGIS; null where there is none. */
export async function findPostgresBinaries(): Promise<string | null> {
  const debian = '/usr/lib/postgresql'
  const versions = (await readdir(debian).catch(() => [])).map(Number).filter((version) => version >= 14)
  for (const version of versions.sort((a, b) => b - a)) {
    const extension = `/usr/share/postgresql/${version}/extension/postgis.control`
    if (await Bun.file(extension).exists()) return `${debian}/${version}/bin`
  }
  const pgConfig = Bun.which('pg_config')
  if (!pgConfig) return null
  const ask = async (what: string) => (await Bun.$`${pgConfig} ${what}`.quiet().text()).trim()
  const hasPostgis = await Bun.file(join(await ask('--sharedir'), 'extension/postgis.control')).exists()
  return hasPostgis ? ask('--bindir') : null
}

/** A command as a user that may run Postgres, which refuses to run as root. Debian's package brings `postgres`. */
export function asPostgresUser(...command: readonly string[]): string[] {
  if (process.getuid?.() !== 0) return [...command]
  // Where it is on Debian, since not every PATH of root leads there.
  return [Bun.which('runuser') ?? '/usr/sbin/runuser', '-u', 'postgres', '--', ...command]
}

/** Hands a folder over to the user that {@link asPostgresUser} runs commands as. */
export async function giveToPostgresUser(folder: string): Promise<void> {
  if (process.getuid?.() !== 0) return
  const id = async (flag: string) => Number(await Bun.$`id ${flag} postgres`.quiet().text())
  await chown(folder, await id('-u'), await id('-g'))
}

/** Starts a cluster from the binaries in `binaries`; rejects with Postgres's own log if it does not come up. */
export async function startCluster(binaries: string): Promise<Cluster> {
  const folder = await mkdtemp(join(tmpdir(), 'datum-test-'))
  const command = asPostgresUser('sh', '-c', RUN_CLUSTER)
  await giveToPostgresUser(folder)
  const port = freePort()
  const shell = Bun.spawn(command, {
    cwd: '/',
    env: { PATH: process.env.PATH ?? '', BIN: binaries, DIR: folder, PORT: String(port) },
    stdin: 'pipe',
    stdout: 'ignore',
    stderr: 'ignore',
  })
  shell.unref()
  const stop = async () => {
    await shell.stdin.end()
    await shell.exited
    await rm(folder, { recursive: true, force: true })
  }
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`
  try {
    await untilAnswering(url, () => shell.exitCode !== null)
  } catch (error) {
    const log = await readFile(join(folder, 'log'), 'utf8').catch(() => '')
    await stop()
    throw new Error(`the test cluster did not start: ${String(error)}\n${log}`)
  }
  return openCluster(url, stop)
}

/** Uses a cluster that somebody else runs. The URL's role must be a superuser. */
export async function openCluster(
  superuserUrl: string,
  onStop: () => Promise<void> = async () => {},
): Promise<Cluster> {
  const sql = quietSql(superuserUrl)
  const run = `${process.pid}_${Date.now().toString(36)}`
  const template = `datum_template_${run}`
  await prepareTemplate(sql, superuserUrl, template)
  let databases = 0
  return {
    adminUrl: (database) => withDatabase(superuserUrl, database),
    appUrl: (database) => withDatabase(superuserUrl, database, APP_ROLE, APP_PASSWORD),
    async createDatabase() {
      const name = `datum_test_${run}_${++databases}`
      await sql.unsafe(`create database ${name} template ${template}`)
      return name
    },
    async dropDatabase(name) {
      await sql.unsafe(`drop database if exists ${name} with (force)`)
    },
    async stop() {
      await sql.unsafe(`drop database if exists ${template} with (force)`).catch(() => {})
      await sql.end({ timeout: 1 })
      await onStop()
    },
  }
}

async function prepareTemplate(sql: Sql, superuserUrl: string, template: string): Promise<void> {
  const [found] = await sql`select from pg_roles where rolname = ${APP_ROLE}`
  const verb = found ? 'alter' : 'create'
  await sql.unsafe(
    `${verb} role ${APP_ROLE} with login nosuperuser nobypassrls nocreatedb password '${APP_PASSWORD}'`,
  )
  await sql.unsafe(`create database ${template}`)
  const inside = quietSql(withDatabase(superuserUrl, template))
  await inside`create extension postgis`
  // A template must have no connection when it is copied.
  await inside.end()
}

function withDatabase(url: string, database: string, user?: string, password?: string): string {
  const changed = new URL(url)
  changed.pathname = `/${database}`
  if (user) changed.username = user
  if (password) changed.password = password
  return changed.href
}

/** A small pool that keeps Postgres's notices off the tests' output. */
export function quietSql(url: string): Sql {
  return postgres(url, { max: 4, onnotice: () => {}, connection: { application_name: 'datum-test' } })
}

/** A port that nothing listens on. */
export function freePort(): number {
  const listener = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } })
  const { port } = listener
  listener.stop(true)
  return port
}

/** Resolves when the server takes statements; rejects after a minute, or if it has exited. */
export async function untilAnswering(url: string, hasExited: () => boolean): Promise<void> {
  const giveUpAt = Date.now() + 60_000
  for (;;) {
    const sql = postgres(url, { max: 1, onnotice: () => {}, connect_timeout: 2 })
    try {
      await sql`select 1`
      return
    } catch (error) {
      if (hasExited() || Date.now() > giveUpAt) throw error
      await Bun.sleep(50)
    } finally {
      await sql.end({ timeout: 1 })
    }
  }
}
