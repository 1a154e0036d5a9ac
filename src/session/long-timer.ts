/** A timer for any moment of the calendar: `setTimeout` wraps around after 2³¹−1 ms, which is 24.8 days. */

const TIMEOUT_MS_MAX = 2 ** 31 - 1

export class LongTimer {
  #timer: ReturnType<typeof setTimeout> | null = null

  /** Calls `action` once the wall clock is at `atMs` or past it; replaces what was set before. */
  set(atMs: number, action: () => void): void {
    this.clear()
    const wait = () => {
      const left = atMs - Date.now()
      if (left <= 0) action()
      else this.#timer = setTimeout(wait, Math.min(left, TIMEOUT_MS_MAX))
    }
    this.#timer = setTimeout(wait, 0)
  }

  clear(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }
}
