/**
 * Reads from a streaming replica where it has replayed what a read must see, and from the primary everywhere else: that
 * one decides, and the replica only spares it work. What makes a replica's answer good is in `replica-proof.ts`.
 */
import type { Sql } from 'postgres'
import type { Log } from '../observe/log.ts'
import { OperatorError } from '../operator-error.ts'
import { errorCode, isUnavailable, QUERY_CANCELLED } from './error-code.ts'
import type { ReadPools, ReadSource, Reads } from './reads.ts'
import {
  leaveMark,
  markOf,
  NOT_REPLAYED,
  pointNow,
  replayedAt,
  type Standing,
  standingOf,
  walPosition,
  walText,
} from './replica-proof.ts'

interface ReplicaPools extends ReadPools {
  /** One connection for questions about the replica itself, which nothing else holds up. */
  readonly probe: Sql
}

interface ReadReplicaParts {
  readonly primary: () => ReadPools
  /** Opens connections to the replica, lazily. */
  readonly open: () => ReplicaPools
  readonly log: Log
}

/** How long a read waits for the replica. It mostly lags by a millisecond, with `synchronous_commit = off` by some hundred. */
const PATIENCE_MS = 500
const LOOK_PAUSE_MS = 4
/** After a replica turned out not to be of use, it is looked at again this often. */
const PAUSE_MS = 2_000
/** The same where it cannot do what the primary can, as reading an unlogged table. */
const UNABLE_PAUSE_MS = 60_000
/** How long the replica may be behind when the server starts, before that starts without it. */
const START_PATIENCE_MS = 5_000
/** How long the replica may take to say where it is. */
const ANSWER_DEADLINE_MS = 2_000
/** While a read takes longer than this, the replica is asked whether it is still there: a dead line says nothing. */
const WATCH_MS = 1_000
/** The same words are not said more often. */
const SAY_AGAIN_MS = 60_000
const PROOF_ATTEMPTS = 5

/** What a server in recovery cannot do: feature_not_supported, read_only_sql_transaction (Postgres §27.4.1). */
const UNABLE = new Set(['0A000', '25006'])

/** Why a replica is not of use. `isWrong`: it is none, or of something else, and that does not pass. */
interface Unproven {
  readonly why: string
  readonly isWrong: boolean
}

export class ReadReplica implements Reads {
  readonly #parts: ReadReplicaParts
  #pools: ReplicaPools
  readonly counts = { replica: 0, primary: 0 }
  /** Which primary the floor is of. */
  #epoch = ''
  /** What reads must see, as the primary's insert position. */
  #floor = 0n
  #blockSize = 8192n
  /** Whether reads may go to the replica. */
  #ready = false
  /** Which run of the replica was found to follow which primary. */
  #proven = { run: '', epoch: '' }
  /** Up to where it has replayed for all that is known. It only grows within a run; what is read checks it anyway. */
  #replayed = 0n
  #looking: Promise<void> | null = null
  #retry: ReturnType<typeof setTimeout> | null = null
  #isProving = false
  #closed = false
  #said = { words: '', at: Number.NEGATIVE_INFINITY, pending: false }

  constructor(parts: ReadReplicaParts) {
    this.#parts = parts
    this.#pools = parts.open()
  }

  async open(): Promise<void> {
    const unproven = await this.#prove(START_PATIENCE_MS)
    if (unproven === null) return
    if (unproven.isWrong)
      throw new OperatorError(
        `DATABASE_READ_URL cannot be used: ${unproven.why}.\nIt must be a streaming replica of the database at DATABASE_URL, with the same role. Or leave it out, and all reads go there.`,
      )
    this.#pause(unproven.why)
  }

  reach(epoch: string, wal: string): void {
    const position = walPosition(wal)
    if (epoch === this.#epoch) {
      if (position > this.#floor) this.#floor = position
      return
    }
    // Positions of another primary, or of the same one after a crash, say nothing about each other.
    this.#epoch = epoch
    this.#floor = position
    if (this.#ready) this.#pause('the primary is not the one that it was')
  }

  async reachNow(): Promise<void> {
    const { epoch, wal } = await pointNow(this.#parts.primary().bulk)
    this.reach(epoch, wal)
  }

  async run<T>(work: (source: ReadSource) => Promise<T>): Promise<T> {
    const source = await this.#source()
    if (source !== null) {
      const watch = setInterval(() => void this.#look(), WATCH_MS)
      try {
        const result = await work(source)
        this.counts.replica++
        return result
      } catch (error) {
        // A limit of the server's own, which the primary would run into as well.
        if (errorCode(error) === QUERY_CANCELLED) throw error
        this.#failed(error)
      } finally {
        clearInterval(watch)
      }
    }
    const { sql, bulk } = this.#parts.primary()
    const result = await work({ sql, bulk, proof: null })
    this.counts.primary++
    // What the replica is asked next must not be older than this.
    if (this.#ready || this.#isProving) await this.reachNow().catch(() => {})
    return result
  }

  async close(timeout: number): Promise<void> {
    this.#closed = true
    this.#ready = false
    if (this.#retry !== null) clearTimeout(this.#retry)
    await end(this.#pools, timeout)
  }

  /** The replica, where it has what a read must see that is asked for now, or has it soon. */
  async #source(): Promise<ReadSource | null> {
    if (!this.#ready) return null
    const target = replayedAt(this.#floor, this.#blockSize)
    if (this.#replayed < target && !(await this.#untilReplayed(target, PATIENCE_MS))) {
      if (this.#ready) this.#pause(BEHIND)
      return null
    }
    const { sql, bulk } = this.#pools
    return { sql, bulk, proof: { replayed: walText(target), run: this.#proven.run } }
  }

  async #untilReplayed(target: bigint, patienceMs: number): Promise<boolean> {
    const giveUpAt = performance.now() + patienceMs
    for (;;) {
      await this.#look()
      if (!this.#ready) return false
      if (this.#replayed >= target) return true
      if (performance.now() > giveUpAt) return false
      await Bun.sleep(LOOK_PAUSE_MS)
    }
  }

  /** Asks the replica where it is: once for all who wait. Never rejects. */
  #look(): Promise<void> {
    this.#looking ??= this.#ask()
      .then((standing) => {
        if (!this.#ready) return
        if (standing.replayed === null) this.#pause(NO_STANDBY)
        else if (standing.run !== this.#proven.run) this.#pause('it was started again')
        else this.#replayed = standing.replayed
      })
      .catch((error) => this.#pause(`it does not answer (${errorCode(error)})`))
      .finally(() => {
        this.#looking = null
      })
    return this.#looking
  }

  async #ask(): Promise<Standing> {
    const pools = this.#pools
    let timer: ReturnType<typeof setTimeout> | undefined
    const deadline = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(Object.assign(new Error('no answer in time'), { code: 'ETIMEDOUT' }))
        // Whatever else waits for it would wait for many minutes.
        if (this.#pools === pools && !this.#closed) this.#pools = this.#parts.open()
        void end(pools, 0)
      }, ANSWER_DEADLINE_MS)
    })
    return Promise.race([standingOf(pools.probe), deadline]).finally(() => clearTimeout(timer))
  }

  /** A read on the replica came to nothing. The primary does it again, and says whether it was the read's own fault. */
  #failed(error: unknown): void {
    const code = errorCode(error)
    // It may be behind again, or another one: the next read looks.
    if (code === NOT_REPLAYED) this.#replayed = 0n
    else if (UNABLE.has(code)) this.#pause(`it cannot read what the primary can (${code})`, UNABLE_PAUSE_MS)
    // Class 40 is a conflict with what it replays, 55P03 a lock of that: they pass.
    else if (isUnavailable(error) && !code.startsWith('40') && code !== '55P03')
      this.#pause(`it does not answer (${code})`)
  }

  #pause(why: string, pauseMs = PAUSE_MS): void {
    this.#ready = false
    if (this.#closed) return
    this.#say(why)
    if (this.#retry !== null) return
    this.#retry = setTimeout(async () => {
      this.#retry = null
      const unproven = await this.#prove(PATIENCE_MS)
      if (unproven !== null) this.#pause(unproven.why)
    }, pauseMs)
  }

  /** Finds out whether the replica can be used, and if so, uses it. Null: it can. Never rejects. */
  async #prove(patienceMs: number): Promise<Unproven | null> {
    this.#isProving = true
    try {
      const unproven = await this.#proveOrFail(patienceMs)
      if (unproven !== null || this.#closed) return unproven
      this.#ready = true
      if (this.#said.pending) this.#parts.log.info('Reads go to the replica again.')
      this.#said.pending = false
      return null
    } catch (error) {
      return { why: `it does not answer (${errorCode(error)})`, isWrong: false }
    } finally {
      this.#isProving = false
    }
  }

  async #proveOrFail(patienceMs: number): Promise<Unproven | null> {
    const primary = this.#parts.primary().bulk
    const standing = await this.#ask()
    this.#blockSize = standing.blockSize
    const problem = problemOf(standing, await standingOf(primary))
    if (problem !== null) return { why: problem, isWrong: true }
    const behind = await this.#catchUp(standing.run, patienceMs)
    if (behind !== null) {
      // What is of another database never gets to where this one is.
      const isOther = (await markOf(this.#pools.probe))?.epoch !== (await markOf(primary))?.epoch
      return isOther ? OTHER_DATABASE : behind
    }
    if (standing.run === this.#proven.run && this.#epoch === this.#proven.epoch) return null
    for (let attempt = 1; attempt <= PROOF_ATTEMPTS; attempt++) {
      const mark = await leaveMark(primary)
      const late = await this.#catchUp(standing.run, patienceMs)
      if (late !== null) return late
      const shown = await markOf(this.#pools.probe)
      if (shown?.epoch === mark.epoch && shown.at === mark.at) {
        this.#proven = { run: standing.run, epoch: this.#epoch }
        return null
      }
      if (shown?.epoch !== mark.epoch) return OTHER_DATABASE
      // Another server may have left its own mark since. If not, this is a copy that went its own way.
      if ((await markOf(primary))?.at === mark.at) return OTHER_DATABASE
    }
    return { why: 'other servers were in the way', isWrong: false }
  }

  /** Waits until the replica has what the primary has now. Null: it has. */
  async #catchUp(run: string, patienceMs: number): Promise<Unproven | null> {
    await this.reachNow()
    const target = replayedAt(this.#floor, this.#blockSize)
    const giveUpAt = performance.now() + patienceMs
    for (;;) {
      const standing = await this.#ask()
      if (standing.run !== run || standing.replayed === null)
        return { why: 'it was started again', isWrong: false }
      this.#replayed = standing.replayed
      if (standing.replayed >= target) return null
      if (performance.now() > giveUpAt) return { why: BEHIND, isWrong: false }
      await Bun.sleep(LOOK_PAUSE_MS)
    }
  }

  #say(why: string): void {
    const now = performance.now()
    if (this.#said.words === why && (this.#said.pending || now - this.#said.at < SAY_AGAIN_MS)) return
    this.#said = { words: why, at: now, pending: true }
    this.#parts.log.warn(`The read replica is not used at the moment: ${why}. Reads go to the primary.`)
  }
}

const NO_STANDBY = 'it is no standby'
const BEHIND = 'it has not replayed what was written to the primary'
const OTHER_DATABASE: Unproven = { why: 'it does not follow the database at DATABASE_URL', isWrong: true }

/** What cannot be right about a replica, in words; null if nothing is. */
function problemOf(replica: Standing, primary: Standing): string | null {
  if (replica.replayed === null) return `${NO_STANDBY} that streams from a primary`
  if (replica.role !== primary.role)
    return `it is connected to as ${replica.role}, and DATABASE_URL as ${primary.role}, whom the policies may treat otherwise`
  if (replica.isolation !== 'read committed')
    return `its default_transaction_isolation is ${replica.isolation}, and must be read committed`
  return null
}

async function end({ sql, bulk, probe }: ReplicaPools, timeout: number): Promise<void> {
  await Promise.all([sql, bulk, probe].map((pool) => pool.end({ timeout }))).catch(() => {})
}
