/**
 * The PostGIS cluster of one run of the benchmark, with statistics of its statements. It is gone with the process,
 * however that ends, like that of the tests (test/support/postgres.ts).
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  asPostgresUser,
  type Cluster,
  findPostgresBinaries,
  giveToPostgresUser,
  openCluster,
} from '../test/support/postgres.ts'

/**
 * fsync is off, on purpose: with it every commit waits for the disk of the machine at hand, which hides what datum
 * costs behind what the disk costs. Without it the floors are as fast as they can be, so the ratios are the harder ones.
 * Commits still write their WAL before they are confirmed (synchronous_commit).
 */
const SETTINGS = [
  "listen_addresses='127.0.0.1'",
  'max_connections=100',
  'fsync=off',
  'full_page_writes=off',
  'synchronous_commit=on',
  'shared_buffers=512MB',
  'max_wal_size=4GB',
  'checkpoint_timeout=30min',
  'jit=off',
  "shared_preload_libraries='pg_stat_statements'",
]

const RUN_CLUSTER = `
trap '' INT TERM HUP
"$BIN/initdb" -D "$DIR/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$DIR/log" 2>&1 || exit 1
printf '%s\\n' "$SETTINGS" "port=$PORT" "unix_socket_directories='$DIR'" >>"$DIR/data/postgresql.conf"
"$BIN/pg_ctl" -D "$DIR/data" -l "$DIR/log" -w -t 60 start >/dev/null 2>&1
echo $?
cat >/dev/null
"$BIN/pg_ctl" -D "$DIR/data" -m immediate stop >/dev/null 2>&1
rm -rf "$DIR"
`

export interface BenchCluster extends Cluster {
  /** Folder of psql, pgbench and the others. */
  readonly binaries: string
}

export async function startBenchCluster(): Promise<BenchCluster> {
  const binaries = await findPostgresBinaries()
  if (binaries === null)
    throw new Error('the benchmark needs a PostgreSQL with PostGIS, and there is none here')
  const folder = await mkdtemp(join(tmpdir(), 'datum-bench-'))
  await giveToPostgresUser(folder)
  const port = freePort()
  const shell = Bun.spawn(asPostgresUser('sh', '-c', RUN_CLUSTER), {
    cwd: '/',
    env: {
      PATH: process.env.PATH ?? '',
      ...{ BIN: binaries, DIR: folder, PORT: String(port), SETTINGS: SETTINGS.join('\n') },
    },
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'ignore',
    // A signal to the benchmark's process group must not keep this from taking the cluster down.
    detached: true,
  })
  shell.unref()
  const stop = async () => {
    await shell.stdin.end()
    await shell.exited
    await rm(folder, { recursive: true, force: true })
  }
  const { value } = await shell.stdout.getReader().read()
  if (new TextDecoder().decode(value).trim() !== '0') {
    const log = await readFile(join(folder, 'log'), 'utf8').catch(() => '')
    await stop()
    throw new Error(`Postgres did not start:\n${log.slice(-2_000)}`)
  }
  return { ...(await openCluster(`postgres://postgres@127.0.0.1:${port}/postgres`, stop)), binaries }
}

function freePort(): number {
  const listener = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } })
  const { port } = listener
  listener.stop(true)
  return port
}
