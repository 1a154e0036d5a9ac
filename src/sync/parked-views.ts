/**
 * What the clients of sockets that closed were holding, by the sealed cursor (view-seal.ts) that they were sent last. A
 * client that comes back with it need not list its rows, which for large views is most of what coming back costs. The
 * seal says that it is this very set, so those who saw the same share one. Kept while there is room; whoever comes later,
 * or to another server, is asked for the list.
 */
import type { HeldSet } from './held-set.ts'

/** Rows in all sets, at some hundred bytes each with their ids. */
const ROWS_MAX = 500_000
/** Longer than most outages and lunch breaks. */
const KEPT_MS = 15 * 60_000

interface Parked {
  readonly held: HeldSet
  readonly until: number
}

export class ParkedViews {
  /** In the order in which they end. */
  readonly #views = new Map<string, Parked>()
  readonly #now: () => number
  #rows = 0

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** Takes a set over, if it has none of the kind. Whether it did. */
  park(sealedCursor: string, held: HeldSet): boolean {
    const before = this.#views.get(sealedCursor)
    if (before !== undefined) {
      // Somebody else may come back as late as this one.
      this.#views.delete(sealedCursor)
      this.#views.set(sealedCursor, { held: before.held, until: this.#now() + KEPT_MS })
      return false
    }
    if (held.size > ROWS_MAX) return false
    this.#views.set(sealedCursor, { held, until: this.#now() + KEPT_MS })
    this.#rows += held.size
    this.tidy()
    return true
  }

  /** A copy of the set that was parked, which stays for others; null: there is none. */
  copyOf(sealedCursor: string): HeldSet | null {
    return this.#views.get(sealedCursor)?.held.copy() ?? null
  }

  /** Drops what is too old or too much. */
  tidy(): void {
    for (const [cursor, { held, until }] of this.#views) {
      if (until > this.#now() && this.#rows <= ROWS_MAX) return
      this.#views.delete(cursor)
      this.#rows -= held.size
      held.clear()
    }
  }
}
