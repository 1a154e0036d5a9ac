/** How many messages a socket may send: a bucket that refills evenly, since each costs the one thread that serves everybody. */
import { MESSAGES_BURST_MAX, MESSAGES_PER_SECOND_MAX } from '../wire/limits.ts'

export class MessageRate {
  readonly #now: () => number
  #left = MESSAGES_BURST_MAX
  #at: number

  /** `now` in milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
    this.#at = now()
  }

  /** Takes one; false if there is none left. */
  take(): boolean {
    if (this.#left < 1) {
      const now = this.#now()
      this.#left = Math.min(
        MESSAGES_BURST_MAX,
        this.#left + ((now - this.#at) / 1_000) * MESSAGES_PER_SECOND_MAX,
      )
      this.#at = now
      if (this.#left < 1) return false
    }
    this.#left--
    return true
  }
}
