/**
 * The ways in to the reads of single subscriptions (view-reader.ts): one for most, and a narrow one beside it for
 * classes whose policies are slow (slow-classes.ts), so that those wait for each other and nobody waits for them.
 */
import { errorCode } from '../db/error-code.ts'
import { OVERDUE_READ_CONNECTIONS, READ_CONNECTIONS, SLOW_READ_CONNECTIONS } from '../db/postgres.ts'
import { FairGate } from './fair-gate.ts'

/** Reads that one socket may have under way by itself; below what there is, so that others get on. */
const READS_PER_SOCKET_MAX = 2
/** A read that takes longer gives its place to the next one and goes on. */
const OVERDUE_MS = 2_000

export interface ReadClass {
  /** Of the class and the table. */
  readonly key: string
  /** Asked when it would be its turn. */
  readonly isSlow: () => boolean
}

/** The reads of one slow class that wait or run. */
interface Queue {
  length: number
  /** Who began to wait before this moment waited for more than half of a read that ran into its time limit. */
  hopelessBefore: number
}

export class ReadGates {
  readonly #wide = new FairGate(READ_CONNECTIONS, READS_PER_SOCKET_MAX, {
    afterMs: OVERDUE_MS,
    places: OVERDUE_READ_CONNECTIONS,
  })
  readonly #narrow = new FairGate(SLOW_READ_CONNECTIONS, 1)
  readonly #queues = new Map<string, Queue>()

  /** Runs `work` when it is its turn. `socket`: whom it counts for. */
  async run<T>(socket: unknown, { key, isSlow }: ReadClass, work: () => Promise<T>): Promise<T> {
    if (!isSlow()) {
      // It may have turned out to be slow while it waited.
      const done = await this.#wide.run(socket, async () => (isSlow() ? null : { result: await work() }))
      if (done !== null) return done.result
    }
    const queue = this.#queues.get(key) ?? { length: 0, hopelessBefore: 0 }
    this.#queues.set(key, queue)
    queue.length++
    const waitingSince = performance.now()
    try {
      return await this.#narrow.run(key, () => {
        // The same policies under the same claims did not end meanwhile: this one has had its time.
        if (waitingSince < queue.hopelessBefore) throw new TimeIsUp()
        return this.#watched(queue, work)
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
      if (errorCode(error) === CANCELLED) queue.hopelessBefore = (since + performance.now()) / 2
      throw error
    }
  }
}

/** SQLSTATE query_canceled. */
export const CANCELLED = '57014'

/** What Postgres would have said after as long a time. */
class TimeIsUp extends Error {
  readonly code = CANCELLED
}
