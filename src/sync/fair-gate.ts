/**
 * Shares out a few places among many who want one: so many at a time in all, and fewer of one key, so that nobody can
 * have them all; who waits is served in turn by key. What waits here waits outside of Postgres and of its time limits.
 */

/** Room beside the places for work that takes long, so that a few of that kind do not hold up all that is quick. */
interface OverdueRoom {
  /** Work that is inside for this long gives its place to the next and goes on in this room, if there is room. */
  readonly afterMs: number
  readonly places: number
}

/** Work that is inside. */
interface Stay {
  isOverdue: boolean
}

export class FairGate {
  readonly #places: number
  readonly #placesPerKey: number
  readonly #room: OverdueRoom | null
  /** Whose time is up and for whom the room was full. */
  readonly #due = new Set<Stay>()
  #overdue = 0
  /** By key, who waits. The order of the keys is whose turn it is. */
  readonly #waiting = new Map<unknown, (() => void)[]>()
  readonly #inside = new Map<unknown, number>()
  #taken = 0

  constructor(places: number, placesPerKey: number, room: OverdueRoom | null = null) {
    this.#places = places
    this.#placesPerKey = placesPerKey
    this.#room = room
  }

  /** Runs `work` when there is a place for its key, and gives the place back however it ends. */
  async run<T>(key: unknown, work: () => Promise<T>): Promise<T> {
    await new Promise<void>((resolve) => {
      const waiting = this.#waiting.get(key)
      if (waiting === undefined) this.#waiting.set(key, [resolve])
      else waiting.push(resolve)
      this.#admit()
    })
    const stay: Stay = { isOverdue: false }
    const timer = this.#room === null ? undefined : setTimeout(() => this.#isDue(stay), this.#room.afterMs)
    try {
      return await work()
    } finally {
      clearTimeout(timer)
      this.#leave(stay)
      const inside = (this.#inside.get(key) ?? 1) - 1
      if (inside === 0) this.#inside.delete(key)
      else this.#inside.set(key, inside)
      this.#admit()
    }
  }

  /** Its time is up: the place is free for the next, if there is room for it elsewhere. */
  #isDue(stay: Stay): void {
    if (this.#overdue >= (this.#room?.places ?? 0)) {
      this.#due.add(stay)
      return
    }
    stay.isOverdue = true
    this.#overdue++
    this.#taken--
    this.#admit()
  }

  #leave(stay: Stay): void {
    this.#due.delete(stay)
    if (!stay.isOverdue) {
      this.#taken--
      return
    }
    this.#overdue--
    const [next] = this.#due
    if (next === undefined) return
    this.#due.delete(next)
    this.#isDue(next)
  }

  #admit(): void {
    for (const [key, waiting] of this.#waiting) {
      if (this.#taken >= this.#places) return
      const inside = this.#inside.get(key) ?? 0
      if (inside >= this.#placesPerKey) continue
      const next = waiting.shift()
      // Deleted and set again, a key goes to the end of the line.
      this.#waiting.delete(key)
      if (waiting.length > 0) this.#waiting.set(key, waiting)
      if (next === undefined) continue
      this.#taken++
      this.#inside.set(key, inside + 1)
      next()
    }
  }
}
