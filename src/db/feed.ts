/**
 * Follows the change log: hands over batches of "these rows may be different now", each with the snapshot that it
 * brings a reader up to. Exact whatever order transactions commit in, because the cursor is a snapshot and not a number.
 */
import type { Sql } from 'postgres'
import type { Log } from '../observe/log.ts'
import type { Envelope } from '../wire/bbox.ts'
import { connectionFailure } from './connection-failure.ts'
import type { Cursor } from './cursor.ts'
import type { Database } from './database.ts'
import { Doorbell } from './doorbell.ts'
import { errorCode, isSqlState, isUnavailable } from './error-code.ts'
import { EXPECTED_SETTINGS_SQL } from './expected-settings.ts'
import { isWithoutSchema } from './schema-version.ts'

/** One entry of the log. Null envelopes: no row, or a row without a place. NaN or infinite edges: it could be anywhere. */
export interface Change {
  readonly table: number
  /** The transaction that made it. */
  readonly xid: bigint
  /** Null: any row of the table. */
  readonly id: string | null
  readonly before: Envelope | null
  readonly after: Envelope | null
}

export interface ChangeBatch {
  readonly changes: readonly Change[]
  /** True: too much happened, or log or database are not what they were. Every view must be compared as a whole. */
  readonly everything: boolean
  /** Where the batch leads to. */
  readonly cursor: Cursor
  /** Where the primary's WAL ended, or beyond (`pg_lsn` as text): a replica that has replayed it shows all of the batch. */
  readonly wal: string
  /** `pg_backend_pid()` of the session that it was read on. */
  readonly backend: number
}

/** More changes than this at once are cheaper to answer by comparing whole views. Bounds the memory of one batch. */
export const CHANGES_PER_BATCH_MAX = 20_000

/** Without a ring the log is looked at this often: the bound on latency where LISTEN cannot be had. */
const POLL_WITHOUT_DOORBELL_MS = 250
/** With one, polling only makes up for a ring that was lost. */
const POLL_WITH_DOORBELL_MS = 2_000
/** While transactions are running that began before writers knew that they should ring: first, and at most. */
const POLL_FOR_EARLIER_MS = 5
const POLL_FOR_EARLIER_MS_MAX = 500
/** So many batches one after the other mean load, under which writers need not ring, and batches may grow. */
const BUSY_BATCHES = 3
/**
 * Under load a batch is followed by a pause, so that the next one holds more and each change costs less: as long as the
 * batch took, within the first limit.
 */
const PAUSE_MS_MAX = 10
/**
 * Load that lasts, and brings many changes at a time, is the application's own, and leaves nine tenths of the time to it,
 * within the second limit. Batches are so large then that many of the changes in them are of the same rows.
 */
const LASTING_LOAD_MS = 1_500
const MANY_CHANGES = 200
const LASTING_PAUSE_RATIO = 9
const LASTING_PAUSE_MS_MAX = 500
/** So often in a row the session with the doorbell's lock is another one: that is no reconnection, but a pooler. */
const LOST_DOORBELLS_MAX = 3
const RETRY_MS = 500
/**
 * So many failures in a row of sessions that Postgres does have, every five seconds then, and they are left for new ones:
 * what an operator mends (a role that was made anew, its settings) is often nothing to sessions from before.
 */
const FAILURES_OF_SESSION_MAX = 10
/** How long the log may take to answer. It is a look at an index; a database that takes longer is as good as away. */
const ANSWER_DEADLINE_MS = 10_000
const DEADLINE_CODE = 'ETIMEDOUT'
const CHANNEL = 'datum'

type Corners = readonly [
  minX: number | string,
  minY: number | string,
  maxX: number | string,
  maxY: number | string,
]
/** `before` is left out where it is the same as `after`, which it mostly is. */
type RawChange = readonly [
  table: string | number,
  xid: string,
  id: string | null,
  after: Corners | null,
  before?: Corners | null,
]

/** The cursor of this moment, to follow the log from. */
export async function currentCursor(sql: Sql): Promise<Cursor> {
  const [row] = await sql<Cursor[]>`
    select datum.epoch() as epoch, pg_current_snapshot()::text as snapshot`
  if (row === undefined) throw new Error('the database gave no cursor')
  return row
}

/**
 * Above every transaction. Where a table has no statistics Postgres takes a third of it for what lies above a bound, and
 * reads all of it rather than the index; it takes one in two hundred for what lies between two (selfuncs.h).
 */
const XID_MAX = '9223372036854775807'

/** Everything logged that `since` does not reflect, for the given tables, and the cursor that does. */
export async function readChanges(sql: Sql, since: Cursor, tables: readonly number[]): Promise<ChangeBatch> {
  // One statement is one snapshot: what it returns is exactly what lies between the two cursors. Not visible in the
  // older one were the transactions from its xmax on and those it lists as running; said so, the index finds them
  // even while a transaction that is hours old keeps xmin back. A transaction that a snapshot shows has its commit in the
  // WAL, which may not be written out yet (synchronous_commit): hence the position of what is inserted, looked up after
  // the snapshot was taken.
  const [row] = await sql<
    {
      epoch: string
      snapshot: string
      wal: string
      backend: number
      pruned: boolean
      count: number
      changes: RawChange[] | null
    }[]
  >`
    with fresh as materialized (
      select c.rel, c.xid, c.id, c.old_box, c.new_box from datum.change c
       where (c.xid >= pg_snapshot_xmax(${since.snapshot}::pg_snapshot) and c.xid < ${XID_MAX}::xid8
              or c.xid = any (array(select pg_snapshot_xip(${since.snapshot}::pg_snapshot))))
         and c.rel = any (string_to_array(${tables.join(',')}, ',')::oid[])
       limit ${CHANGES_PER_BATCH_MAX + 1}
    )
    select datum.epoch() as epoch, pg_current_snapshot()::text as snapshot, pg_backend_pid() as backend,
           pg_current_wal_insert_lsn()::text as wal,
           (select m.pruned_before > pg_snapshot_xmin(${since.snapshot}::pg_snapshot) from datum.meta m) as pruned,
           (select count(*)::int from fresh) as count,
           (select json_agg(case
               when not (select ${sql.unsafe(EXPECTED_SETTINGS_SQL)}) then null
               when f.old_box[0] operator(pg_catalog.~=) f.new_box[0] and f.old_box[1] operator(pg_catalog.~=) f.new_box[1]
                 then json_build_array(f.rel, f.xid::text, f.id, ${sql.unsafe(cornersSql('new_box'))})
               else json_build_array(f.rel, f.xid::text, f.id, ${sql.unsafe(cornersSql('new_box'))}, ${sql.unsafe(cornersSql('old_box'))})
               end) from fresh f) as changes`
  if (row === undefined) throw new Error('the change log gave no answer')
  // In another epoch the old cursor says nothing, whatever it looks like.
  const everything = row.epoch !== since.epoch || row.pruned || row.count > CHANGES_PER_BATCH_MAX
  return {
    everything,
    changes: everything ? [] : (row.changes ?? []).map(changeOf),
    cursor: { epoch: row.epoch, snapshot: row.snapshot },
    wal: row.wal,
    backend: row.backend,
  }
}

function cornersSql(box: string): string {
  return `case when f.${box} is not null then
    json_build_array((f.${box}[1])[0], (f.${box}[1])[1], (f.${box}[0])[0], (f.${box}[0])[1]) end`
}

function changeOf([table, xid, id, corners, cornersBefore]: RawChange): Change {
  const after = envelopeOf(corners)
  const before = cornersBefore === undefined ? after : envelopeOf(cornersBefore)
  return { table: Number(table), xid: BigInt(xid), id, before, after }
}

function envelopeOf(corners: Corners | null): Envelope | null {
  if (corners === null) return null
  // Postgres writes what JSON has no number for as a string: Number('Infinity') and Number('NaN') read it.
  const [minX, minY, maxX, maxY] = corners.map(Number) as [number, number, number, number]
  return { minX, minY, maxX, maxY }
}

export interface FeedOptions {
  readonly database: Database
  readonly tables: () => readonly number[]
  readonly log: Log
  /** Takes a batch. The next one is read when it has resolved, so batches grow while it is busy. Must not reject. */
  readonly onBatch: (batch: ChangeBatch) => Promise<void>
  /** Tells whether Postgres answers. */
  readonly onHealth: (healthy: boolean) => void
}

/** The follower. One per server process; processes do not know of each other. */
export class Feed {
  readonly #options: FeedOptions
  #cursor: Cursor
  #rung = true
  #wake: (() => void) | null = null
  #stopped = false
  #canListen = false
  #isListening = false
  #stopListening: (() => Promise<void>) | null = null
  #running: Promise<void> = Promise.resolve()
  /** Who waits for a look at the log that begins later than now. */
  #waiting: (() => void)[] = []

  private constructor(options: FeedOptions, cursor: Cursor) {
    this.#options = options
    this.#cursor = cursor
  }

  /** Starts from this moment. */
  static async start(options: FeedOptions): Promise<Feed> {
    const feed = new Feed(options, await currentCursor(options.database.feed))
    feed.#running = feed.#run()
    return feed
  }

  async #listen(): Promise<void> {
    const { database, log } = this.#options
    try {
      this.#stopListening = await withDeadline(database.listen(CHANNEL, () => this.ring()))
      // With two-phase commit the triggers do not ring (see datum.ring).
      const [server] = await withDeadline(
        database.feed<{ rings: boolean }[]>`
          select current_setting('max_prepared_transactions')::int = 0 as rings`,
      )
      this.#canListen = server?.rings ?? false
    } catch (error) {
      if (isUnavailable(error)) throw error
      this.#canListen = false
      log.warn('LISTEN is not possible on this connection (a pooler?); polling instead.')
    }
    this.#isListening = true
  }

  /** Up to where every batch has been taken. */
  get cursor(): Cursor {
    return this.#cursor
  }

  /** Says that there may be something new. Cheap, and may be called at any time. */
  ring(): void {
    this.#rung = true
    this.#wake?.()
  }

  /** Resolves once the log was looked at anew and `onBatch` has what there was; or the feed is stopped. */
  afterNextLook(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
      this.ring()
    })
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.ring()
    await this.#running
    for (const resolve of this.#waiting.splice(0)) resolve()
    await this.#stopListening?.().catch(() => {})
  }

  /** Follows; after an outage, follows again on another connection. */
  async #run(): Promise<void> {
    const { database, log, onHealth } = this.#options
    let failures = 0
    /** What was said of this outage: each of its causes once. */
    const said = new Set<string>()
    const healthy = () => {
      if (failures > 0) log.info('Postgres answers again.')
      failures = 0
      said.clear()
      onHealth(true)
    }
    while (!this.#stopped) {
      try {
        await this.#poll(healthy)
      } catch (error) {
        if (this.#stopped) return
        const code = errorCode(error)
        if (!said.has(code)) log.error(`${outageWords(error)} Sockets stay open; trying again.`)
        said.add(code)
        failures++
        onHealth(false)
        const isOfSession = isSqlState(code) && connectionFailure(code) === null
        if (code === DEADLINE_CODE || (isOfSession && failures % FAILURES_OF_SESSION_MAX === 0)) {
          database.renew()
          this.#isListening = false
        }
        await this.#sleep(RETRY_MS)
      }
    }
  }

  /**
   * Reads and hands over, again and again. While there is always something new it does not sleep, and nobody rings;
   * with nothing new it sees to it that writers ring, reads once more, and sleeps.
   */
  async #poll(healthy: () => void): Promise<void> {
    const { database, tables, onBatch, log } = this.#options
    if (!this.#isListening) await this.#listen()
    // The embedded database has one session, so writers there always ring: they would not see a lock of their own.
    const doorbell = this.#canListen && database.kind === 'postgres' ? new Doorbell(database.feed) : null
    let inARow = 0
    let busySince = 0
    let earlierMs = POLL_FOR_EARLIER_MS
    let lostDoorbells = 0
    while (!this.#stopped) {
      this.#rung = false
      const beganAt = performance.now()
      const waiting = this.#waiting.length
      const batch = await withDeadline(readChanges(database.feed, this.#cursor, tables()))
      if (this.#stopped) return
      const hadDoorbell = doorbell?.isSet ?? false
      doorbell?.sawBackend(batch.backend)
      if (hadDoorbell && !doorbell?.isSet) lostDoorbells++
      if (lostDoorbells >= LOST_DOORBELLS_MAX) {
        log.warn('Statements have one session of Postgres after the other (a pooler?); polling instead.')
        this.#canListen = false
        return
      }
      healthy()
      const taken = onBatch(batch)
      for (const resolve of this.#waiting.splice(0, waiting)) resolve()
      await taken
      this.#cursor = batch.cursor
      inARow = batch.everything || batch.changes.length > 0 ? inARow + 1 : 0
      if (inARow > 0) {
        if (inARow === 1) busySince = beganAt
        if (inARow === BUSY_BATCHES && doorbell !== null) await withDeadline(doorbell.unset())
        // Not to be cut short by a ring: under load it rings all the time.
        if (inARow >= BUSY_BATCHES) await Bun.sleep(pauseMs(batch, beganAt, busySince))
        continue
      }
      const isNew =
        doorbell !== null && !doorbell.isSet ? await withDeadline(doorbell.set(batch.backend)) : false
      if (isNew === null) lostDoorbells++
      if (isNew) earlierMs = POLL_FOR_EARLIER_MS
      else if (!this.#rung) {
        const isCovered = doorbell === null || doorbell.covers(this.#cursor.snapshot)
        await this.#sleep(isCovered ? this.#safetyPollMs : earlierMs)
        if (doorbell?.isSet) lostDoorbells = 0
        if (!isCovered) earlierMs = Math.min(earlierMs * 2, POLL_FOR_EARLIER_MS_MAX)
      }
    }
  }

  get #safetyPollMs(): number {
    return this.#canListen ? POLL_WITH_DOORBELL_MS : POLL_WITHOUT_DOORBELL_MS
  }

  #sleep(milliseconds: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, milliseconds)
    this.#wake = resolve
    return promise.finally(() => {
      clearTimeout(timer)
      this.#wake = null
    })
  }
}

/** What stands between the feed and the log, for who can mend it. */
function outageWords(error: unknown): string {
  const code = errorCode(error)
  if (isWithoutSchema(error))
    return `The change log cannot be read (${code}): run \`datum-server setup\` again, for this server's role.`
  const failure = connectionFailure(code)
  return `Postgres does not answer (${code}${failure === null ? '' : `: ${failure}`}).`
}

/** How long to let changes gather after a batch under load. */
function pauseMs({ changes }: ChangeBatch, beganAt: number, busySince: number): number {
  const now = performance.now()
  const tookMs = now - beganAt
  const isLasting = now - busySince > LASTING_LOAD_MS && changes.length >= MANY_CHANGES
  return isLasting
    ? Math.min(tookMs * LASTING_PAUSE_RATIO, LASTING_PAUSE_MS_MAX)
    : Math.min(tookMs, PAUSE_MS_MAX)
}

/** Rejects where the answer does not come in time: the line may be dead, and nobody will ever say so. */
async function withDeadline<T>(answer: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const deadline = new Promise<never>((_, reject) => {
    const error = Object.assign(new Error('no answer in time'), { code: DEADLINE_CODE })
    timer = setTimeout(() => reject(error), ANSWER_DEADLINE_MS)
  })
  return Promise.race([answer, deadline]).finally(() => clearTimeout(timer))
}
