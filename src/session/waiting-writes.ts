/** How much of everybody's batches waits for the database, by user and in all, so that nobody can fill the memory with them. */
import { WAITING_CHARACTERS_IN_ALL_MAX, WAITING_CHARACTERS_PER_USER_MAX } from '../wire/limits.ts'

export class WaitingWrites {
  readonly #byUser = new Map<string, number>()
  #inAll = 0

  /** Takes a place for so many characters of a user; false if there is none. */
  take(user: string, characters: number): boolean {
    const own = (this.#byUser.get(user) ?? 0) + characters
    if (own > WAITING_CHARACTERS_PER_USER_MAX || this.#inAll + characters > WAITING_CHARACTERS_IN_ALL_MAX)
      return false
    this.#byUser.set(user, own)
    this.#inAll += characters
    return true
  }

  /** Gives a place back. */
  giveBack(user: string, characters: number): void {
    this.#inAll -= characters
    const left = (this.#byUser.get(user) ?? 0) - characters
    if (left > 0) this.#byUser.set(user, left)
    else this.#byUser.delete(user)
  }
}
