/**
 * A PostGIS cluster of the torture's own, which can be stopped and started while servers use it. Like that of the
 * tests (`support/postgres.ts`) it is gone with the process, however that ends.
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
} from '../support/postgres.ts'

type StopMode = 'fast' | 'immediate'

export interface RestartableCluster extends Cluster {
  /** Stops Postgres as a shutdown (`fast`) or as a crash (`immediate`) would. */
  halt(mode: StopMode): Promise<void>
  start(): Promise<void>
  /** What Postgres has logged so far. */
  log(): Promise<string>
}

/**
 * Commits reach the operating system before they are confirmed, which is what a crash of Postgres is allowed to cost:
 * nothing. The WAL writer is slow, so that a crash does lose what nobody was promised.
 */
const SETTINGS = [
  "listen_addresses='127.0.0.1'",
  'max_connections=200',
  'fsync=off',
  'full_page_writes=off',
  'synchronous_commit=on',
  'wal_writer_delay=5s',
  'shared_buffers=64MB',
  'jit=off',
]

/** Takes commands on standard input, answers each with a line, and takes the cluster down when the input ends. */
const RUN_CLUSTER = `
trap '' INT TERM HUP
"$BIN/initdb" -D "$DIR/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$DIR/log" 2>&1 || exit 1
printf '%s\\n' "$SETTINGS" "port=$PORT" "unix_socket_directories='$DIR'" >>"$DIR/data/postgresql.conf"
while read -r command; do
  case $command in
    start) "$BIN/pg_ctl" -D "$DIR/data" -l "$DIR/log" -w -t 60 start ;;
    *) "$BIN/pg_ctl" -D "$DIR/data" -m "$command" -w -t 60 stop ;;
  esac >/dev/null 2>&1
  echo $?
done
"$BIN/pg_ctl" -D "$DIR/data" -m immediate stop >/dev/null 2>&1
rm -rf "$DIR"
`

export async function startRestartableCluster(): Promise<RestartableCluster> {
  const binaries = await findPostgresBinaries()
  if (binaries === null)
    throw new Error('the torture needs a PostgreSQL with PostGIS, and there is none here')
  const folder = await mkdtemp(join(tmpdir(), 'datum-torture-'))
  await giveToPostgresUser(folder)
  const port = freePort()
  const command = asPostgresUser('sh', '-c', RUN_CLUSTER)
  const environment = { BIN: binaries, DIR: folder, PORT: String(port), SETTINGS: SETTINGS.join('\n') }
  const shell = Bun.spawn(command, {
    cwd: '/',
    env: { PATH: process.env.PATH ?? '', ...environment },
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'ignore',
    // A signal to the torture's process group must not keep this from taking the cluster down.
    detached: true,
  })
  shell.unref()
  const answers = shell.stdout.getReader()
  const log = () => readFile(join(folder, 'log'), 'utf8').catch(() => '')
  const tell = async (what: 'start' | StopMode) => {
    shell.stdin.write(`${what}\n`)
    await shell.stdin.flush()
    const answer = new TextDecoder().decode((await answers.read()).value).trim()
    if (answer === '0') return
    throw new Error(`Postgres did not obey "${what}" (${answer}):\n${(await log()).slice(-2_000)}`)
  }
  await tell('start')
  const stop = async () => {
    await shell.stdin.end()
    await shell.exited
    await rm(folder, { recursive: true, force: true })
  }
  const cluster = await openCluster(`postgres://postgres@127.0.0.1:${port}/postgres`, stop)
  return { ...cluster, halt: tell, start: () => tell('start'), log }
}

/** A port that nobody listens on at the moment. */
export function freePort(): number {
  const listener = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } })
  const { port } = listener
  listener.stop(true)
  return port
}
