/**
 * Shares out a few places among many who want one: so many at a time in all, and fewer of one key, so that nobody can
 * have them all; who waits is served in turn by key. What waits here waits outside of Postgres and of its time limits.
 */
export class FairGate {
  readonly #places: number
  readonly #placesPerKey: number
  /** By key, who waits. The order of the keys is whose turn it is. */
  readonly #waiting = new Map<unknown, (() => void)[]>()
  readonly #inside = new Map<unknown, number>()
  #taken = 0

  constructor(places: number, placesPerKey: number) {
    this.#places = places
    this.#placesPerKey = placesPerKey
  }

  /** Runs `work` when there is a place for its key, and gives the place back however it ends. */
  async run<T>(key: unknown, work: () => Promise<T>): Promise<T> {
    await new Promise<void>((resolve) => {
      const waiting = this.#waiting.get(key)
      if (waiting === undefined) this.#waiting.set(key, [resolve])
      else waiting.push(resolve)
      this.#admit()
    })
    try {
      return await work()
    } finally {
      this.#taken--
      const inside = (this.#inside.get(key) ?? 1) - 1
      if (inside === 0) this.#inside.delete(key)
      else this.#inside.set(key, inside)
      this.#admit()
    }
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
