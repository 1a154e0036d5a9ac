/**
 * The classes whose policies were seen to be slow. The table's hub (table-hub.ts) leaves them out of the reads that
 * others wait for, and the view reader (view-reader.ts) gives them places of their own.
 */

/** How long a class is remembered after its last slow read. One whose reads are quick again is forgotten at once. */
const REMEMBERED_MS = 60_000
/** Beyond this the oldest are forgotten: what is remembered only saves time. */
const CLASSES_MAX = 1_000

export class SlowClasses {
  /** By class, until when. In the order in which they end. */
  readonly #until = new Map<string, number>()

  /** A read of this class took too long. */
  note(key: string): void {
    this.#until.delete(key)
    this.#until.set(key, performance.now() + REMEMBERED_MS)
    if (this.#until.size <= CLASSES_MAX) return
    for (const oldest of this.#until.keys()) {
      this.#until.delete(oldest)
      return
    }
  }

  /** A read of this class was quick. */
  forget(key: string): void {
    this.#until.delete(key)
  }

  has(key: string): boolean {
    // Asked for every subscription that a change touches, and nearly always empty.
    if (this.#until.size === 0) return false
    const until = this.#until.get(key)
    if (until === undefined) return false
    if (until > performance.now()) return true
    this.#until.delete(key)
    return false
  }
}
