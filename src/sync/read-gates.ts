/**
 * The ways in to the reads of single subscriptions (view-reader.ts): a wide one, in which a read has little time, and a
 * narrow one beside it, with much, for classes whose policies are slow (slow-classes.ts). So those wait for each other,
 * and others wait for them no longer than the little. Reads of the change log have a third one, for two.
 */
import { errorCode, QUERY_CANCELLED } from '../db/error-code.ts'
import { READ_CONNECTIONS, SLOW_READ_CONNECTIONS } from '../db/postgres.ts'
import { FairGate } from './fair-gate.ts'

/** Reads that one socket may have under way by itself; below what there is, so that others get on. */
const READS_PER_SOCKET_MAX = 2

/**
 * Reads of the change log at a time, for clients that come back from further away than the server remembers
 * (change-history.ts): each may bring 20,000 changes. One of each user.
 */
const LOG_READS_MAX = 2

/** What a statement of a read may take: in all, and of that to wait for a lock, which is not its policies' fault. */
export interface ReadTime {
  readonly timeoutMs: number
  readonly lockTimeoutMs: number
}

/** A thousand times what most reads take. What needs longer begins anew behind the narrow gate. */
const LITTLE_TIME: ReadTime = { timeoutMs: 2_000, lockTimeoutMs: 1_500 }
/** Then the subscription ends with `timeout`. */
const MUCH_TIME: ReadTime = { timeoutMs: 15_000, lockTimeoutMs: 5_000 }

interface ReadClass {
  /** Of the class and the table. */
  readonly key: string
  /** Asked when it would be its turn. */
  readonly isSlow: () => boolean
  /** It did not end in little time. */
  readonly noteSlow: () => void
}

/** The reads of one slow class that wait or run. */
interface Queue {
  length: number
  /** Who began to wait before this moment waited for more than half of a read that ran into its time limit. */
  hopelessBefore: number
}

export class ReadGates {
  readonly #wide = new FairGate(READ_CONNECTIONS, READS_PER_SOCKET_MAX)
  readonly #narrow = new FairGate(SLOW_READ_CONNECTIONS, 1)
  readonly #log = new FairGate(LOG_READS_MAX, 1)
  readonly #queues = new Map<string, Queue>()

  /**
   * Runs `work` when it is its turn, and a second time if the first was cancelled because it took long. `socket`: whom it
   * counts for.
   */
  async run<T>(socket: unknown, readClass: ReadClass, work: (time: ReadTime) => Promise<T>): Promise<T> {
    for (;;) {
      // While it waits at one gate it may turn out to belong to the other.
      const done = readClass.isSlow()
        ? await this.#inMuchTime(readClass, work)
        : await this.#wide.run(socket, () => inLittleTime(readClass, work))
      if (done !== null) return done.result
    }
  }

  /** Runs a read of the change log when it is the user's turn. Null: by then nobody wanted it any more. */
  readLog<T>(user: unknown, isWanted: () => boolean, work: () => Promise<T>): Promise<T | null> {
    return this.#log.run(user, async () => (isWanted() ? await work() : null))
  }

  /** Null: the class is not slow any more. */
  async #inMuchTime<T>(
    { key, isSlow }: ReadClass,
    work: (time: ReadTime) => Promise<T>,
  ): Promise<{ readonly result: T } | null> {
    const queue = this.#queues.get(key) ?? { length: 0, hopelessBefore: 0 }
    this.#queues.set(key, queue)
    queue.length++
    const waitingSince = performance.now()
    try {
      return await this.#narrow.run(key, async () => {
        if (!isSlow()) return null
        // The same policies under the same claims did not end meanwhile: this one has had its time.
        if (waitingSince < queue.hopelessBefore) throw new TimeIsUp()
        return { result: await this.#watched(queue, () => work(MUCH_TIME)) }
      })
    } finally {
      if (--queue.length === 0) this.#queues.delete(key)
    }
  }

  async #watched<T>(queue: Queue, work: () => Promise<T>): Promise<T> {
    const since = performance.now()
    try {
      return await work()
    } catch (error) {
      if (errorCode(error) === QUERY_CANCELLED) queue.hopelessBefore = (since + performance.now()) / 2
      throw error
    }
  }
}

/** Null: the class is slow, as it turned out now or while this read waited. */
async function inLittleTime<T>(
  { isSlow, noteSlow }: ReadClass,
  work: (time: ReadTime) => Promise<T>,
): Promise<{ readonly result: T } | null> {
  if (isSlow()) return null
  try {
    return { result: await work(LITTLE_TIME) }
  } catch (error) {
    if (errorCode(error) !== QUERY_CANCELLED) throw error
    noteSlow()
    return null
  }
}

/** What Postgres would have said after as long a time. */
class TimeIsUp extends Error {
  readonly code = QUERY_CANCELLED
}
