/**
 * Lets writers know whether a server sleeps. NOTIFY takes a lock over all commits of the cluster, so the triggers ring
 * only while some server holds this advisory lock (shared: several servers may sleep at once). The feed (feed.ts) takes
 * it before it sleeps and gives it back under load, when it is reading all the time anyway.
 */
import type { Sql } from 'postgres'

/** "datumbel" as a number. */
const LOCK_KEY = '7233190524228887916'

const TRY_SQL = `pg_try_advisory_lock(${LOCK_KEY}) and pg_advisory_unlock(${LOCK_KEY})`

/**
 * What a change trigger does to wake the servers: nothing, if nobody sleeps and the lock is to be had. Short, since
 * Postgres prepares every part of an expression anew in each transaction. For a search_path of pg_catalog.
 */
export const RING_SQL = `if not (${TRY_SQL}) or current_setting('datum_server.ring', true) = 'always' then
      perform datum.ring();
    end if`

/**
 * The rest, in `datum.ring`. Another writer may have had the lock for the microsecond that this one wanted it, so it is
 * tried again: where writers are many, NOTIFY would cost all of them. `datum_server.ring` is for a session that is writer
 * and server in one. Where two-phase commit is enabled nothing rings, since a transaction that did cannot be prepared
 * (Postgres, NOTIFY); servers poll there. One expression, so that no cancellation comes between taking the lock and
 * giving it back.
 */
export const RING_BODY_SQL = `case
    when current_setting('max_prepared_transactions')::integer > 0 then null
    when coalesce(current_setting('datum_server.ring', true), '') <> 'always' and (${TRY_SQL} or ${TRY_SQL} or ${TRY_SQL})
      then null
    else pg_notify('datum', '') is null end`

export class Doorbell {
  readonly #sql: Sql
  /** The session that holds the lock, and the first transaction that rings because of it. Null: nobody was told to. */
  #held: { readonly backend: number; readonly firstToRing: bigint } | null = null

  /** `sql` has one direct connection; the lock is gone when that is. */
  constructor(sql: Sql) {
    this.#sql = sql
  }

  get isSet(): boolean {
    return this.#held !== null
  }

  /**
   * From now on writers ring. `backend` is the session that the feed has just read on. False if it could not be had at
   * once; try again. Null: the statement came to another session, where a lock would only stay behind.
   */
  async set(backend: number): Promise<boolean | null> {
    const [lock] = await this.#sql<{ locked: boolean | null; backend: number }[]>`
      select case when pg_backend_pid() = ${backend}::int
               then pg_try_advisory_lock_shared(${LOCK_KEY}::bigint) end as locked, pg_backend_pid() as backend`
    if (lock?.locked !== true) return lock?.locked ?? null
    // A second statement, for a snapshot taken after the lock.
    const [now] = await this.#sql<{ xmax: string }[]>`
      select pg_snapshot_xmax(pg_current_snapshot())::text as xmax`
    this.#held = { backend: lock.backend, firstToRing: BigInt(now?.xmax ?? '0') }
    return true
  }

  async unset(): Promise<void> {
    if (!this.isSet) return
    this.#held = null
    await this.#sql`select pg_advisory_unlock_shared(${LOCK_KEY}::bigint)`
  }

  /** Says which session the feed is reading on: with another one the lock is lost, and must be taken again. */
  sawBackend(backend: number): void {
    if (this.#held?.backend !== backend) this.#held = null
  }

  /**
   * Whether whatever comes after this snapshot will ring. Not while a transaction is running that may have looked for
   * the lock before it was taken: such a one must be waited for, by reading.
   */
  covers(snapshot: string): boolean {
    return this.#held !== null && BigInt(snapshot.split(':')[0] ?? '0') >= this.#held.firstToRing
  }
}
