/**
 * The moment between a commit and its answer, drawn out: with a synchronous standby that is not there, Postgres makes a
 * commit durable and then waits (Postgres §27.2.8). What is lost in that moment has been written, and nobody knows.
 */
import type { Sql } from 'postgres'
import type { TortureWorld } from './world.ts'

/** Clients write all the time, so that a commit comes by well before this; if not, there is nobody to be surprised. */
const COMMIT_WITHIN_MS = 1_500
const RESET_ATTEMPTS_MAX = 200

/**
 * Runs `fault` while a commit of a server hangs there, if one comes by; `sql` has a connection that does not. Never
 * rejects: Postgres may be away.
 */
export async function duringCommit(
  world: TortureWorld,
  fault: (sql: Sql) => Promise<unknown>,
): Promise<void> {
  // Not the application's connections, of which every one may come to hang in a commit.
  const sql = world.connect()
  try {
    await sql`alter system set synchronous_standby_names = 'nobody'`
    await sql`select pg_reload_conf()`
    if (await isCommitHeld(sql)) {
      // Before the fault: it may be a crash, after which the file is read anew.
      await sql`alter system reset synchronous_standby_names`
      await fault(sql)
    }
  } catch (error) {
    world.history.note('commits', `refused: ${String(error)}`)
  }
  await release(sql)
  await sql.end({ timeout: 1 })
}

async function isCommitHeld(sql: Sql): Promise<boolean> {
  for (const giveUpAt = Date.now() + COMMIT_WITHIN_MS; Date.now() < giveUpAt; await Bun.sleep(5)) {
    const [row] = await sql<{ held: boolean }[]>`
      select exists (select from pg_stat_activity where application_name = 'datum-server' and wait_event = 'SyncRep') as held`
    if (row?.held) return true
  }
  return false
}

/** Whatever else happens to Postgres meanwhile: commits that hang for ever would be no fault but the end. */
async function release(sql: Sql): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await sql`alter system reset synchronous_standby_names`
      await sql`select pg_reload_conf()`
      return
    } catch (error) {
      if (attempt === RESET_ATTEMPTS_MAX) throw error
      await Bun.sleep(100)
    }
  }
}
