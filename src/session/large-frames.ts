/**
 * Large frames are taken in turn: what one costs is work of the one thread that serves everybody, which the number of
 * messages (message-rate.ts) does not bound. Each user has one at a time and rests after it for a multiple of what it
 * took, however many sockets they have; who sends one now and then waits for nothing. Shared by all sessions.
 */
import { FairGate } from '../sync/fair-gate.ts'

/**
 * A user's rest, in multiples of the time that the frame took: a fifth of the thread is what one can have. A `subscribe`
 * that lists 100,000 ids takes some 0.1 s, and a socket can list twice as many: all is taken within a second.
 */
const REST_RATIO = 4

export class LargeFrames {
  readonly #now: () => number
  readonly #sleep: (milliseconds: number) => Promise<void>
  /** For everybody at once, since what is done in one go needs no place among others. */
  readonly #gate = new FairGate(Number.POSITIVE_INFINITY, 1)

  /** `now` in milliseconds. */
  constructor(now = () => performance.now(), sleep: (milliseconds: number) => Promise<void> = Bun.sleep) {
    this.#now = now
    this.#sleep = sleep
  }

  /** Runs `work` when it is the user's turn. Settles as that does, before the rest. */
  take(user: string, work: () => void | Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      void this.#gate.run(user, async () => {
        const startedAt = this.#now()
        await Promise.try(work).then(resolve, reject)
        await this.#sleep((this.#now() - startedAt) * REST_RATIO)
      })
    })
  }
}
