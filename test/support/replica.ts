/**
 * A streaming replica of the tests' cluster, made with pg_basebackup as an operator makes one: started, killed, started
 * again and promoted at a test's word, and gone with the tests' process. Real Postgres only.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Sql } from 'postgres'
import {
  asPostgresUser,
  type Cluster,
  findPostgresBinaries,
  freePort,
  giveToPostgresUser,
  quietSql,
  untilAnswering,
} from './postgres.ts'

export interface Replica extends AsyncDisposable {
  /** The same URL, of the replica. */
  at(url: string): string
  /** A superuser there, for the named database. The caller ends it. */
  admin(database: string): Sql
  pauseReplay(): Promise<void>
  resumeReplay(): Promise<void>
  /** Resolves once it shows what the primary shows by now. */
  caughtUp(): Promise<void>
  /** Ends it as a crash does. */
  kill(): Promise<void>
  start(): Promise<void>
  promote(): Promise<void>
  stop(): Promise<void>
}

/** Takes words on standard input, answers each with the exit code of what it did, and takes all down at the end of it. */
const RUN_REPLICA = `
trap '' INT
"$BIN/pg_basebackup" -d "$PRIMARY" -D "$DIR/data" -R -X stream -c fast --no-sync >"$DIR/log" 2>&1
echo $?
while read -r word; do
  case "$word" in
    start) "$BIN/pg_ctl" -D "$DIR/data" -l "$DIR/log" -w -t 60 -o "-p $PORT -k $DIR $SETTINGS" start >/dev/null 2>&1 ;;
    kill) "$BIN/pg_ctl" -D "$DIR/data" -m immediate stop >/dev/null 2>&1 ;;
    promote) "$BIN/pg_ctl" -D "$DIR/data" -w promote >/dev/null 2>&1 ;;
  esac
  echo $?
done
"$BIN/pg_ctl" -D "$DIR/data" -m immediate stop >/dev/null 2>&1
rm -rf "$DIR"
`

const SETTINGS =
  '-c listen_addresses=127.0.0.1 -c max_connections=300 -c shared_buffers=64MB -c jit=off -c hot_standby=on'

/** Makes and starts one. What the cluster has by now is in it at once, what comes later is streamed. */
export async function startReplica(cluster: Cluster): Promise<Replica> {
  const binaries = await findPostgresBinaries()
  if (binaries === null) throw new Error('a replica needs the binaries of PostgreSQL')
  const folder = await mkdtemp(join(tmpdir(), 'datum-replica-'))
  await giveToPostgresUser(folder)
  const port = freePort()
  const primary = new URL(cluster.adminUrl('postgres'))
  primary.pathname = ''
  const shell = Bun.spawn(asPostgresUser('sh', '-c', RUN_REPLICA), {
    cwd: '/',
    env: {
      PATH: process.env.PATH ?? '',
      BIN: binaries,
      DIR: folder,
      PORT: String(port),
      PRIMARY: primary.href,
      SETTINGS,
    },
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'ignore',
  })
  shell.unref()
  const answers = shell.stdout.getReader()
  const answered = async (what: string) => {
    const { value } = await answers.read()
    const code = new TextDecoder().decode(value).trim()
    if (code === '0') return
    const log = await readFile(join(folder, 'log'), 'utf8').catch(() => '')
    throw new Error(`the replica: ${what} came to ${code}\n${log.slice(-2_000)}`)
  }
  const say = async (word: string) => {
    shell.stdin.write(`${word}\n`)
    await shell.stdin.flush()
    await answered(word)
  }
  const at = (url: string) => {
    const changed = new URL(url)
    changed.port = String(port)
    return changed.href
  }
  const asAdmin = async (statement: string) => {
    const sql = quietSql(at(cluster.adminUrl('postgres')))
    await sql.unsafe(statement).finally(() => sql.end())
  }
  const stop = async () => {
    await shell.stdin.end()
    await shell.exited
    await rm(folder, { recursive: true, force: true })
  }
  const start = async () => {
    await say('start')
    await untilAnswering(at(cluster.adminUrl('postgres')), () => shell.exitCode !== null)
  }
  const caughtUp = async () => {
    const [primary, standby] = [cluster.adminUrl('postgres'), at(cluster.adminUrl('postgres'))].map(quietSql)
    try {
      // Commits, so that what was written without waiting for the WAL is written out.
      await primary!`select pg_switch_wal()`
      const [now] = await primary!<{ lsn: string }[]>`select pg_current_wal_flush_lsn()::text as lsn`
      for (;;) {
        const [there] = await standby!<{ is: boolean }[]>`
          select pg_last_wal_replay_lsn() >= ${now!.lsn}::text::pg_lsn as is`
        if (there?.is) return
        await Bun.sleep(20)
      }
    } finally {
      await Promise.all([primary!.end(), standby!.end()])
    }
  }
  try {
    await answered('pg_basebackup')
    await start()
  } catch (error) {
    await stop()
    throw error
  }
  return {
    at,
    admin: (database) => quietSql(at(cluster.adminUrl(database))),
    pauseReplay: () => asAdmin('select pg_wal_replay_pause()'),
    resumeReplay: () => asAdmin('select pg_wal_replay_resume()'),
    caughtUp,
    kill: () => say('kill'),
    start,
    promote: () => say('promote'),
    stop,
    [Symbol.asyncDispose]: stop,
  }
}
