/**
 * A timer for a moment of the wall clock, however far away. A plain timer overflows past 24.8 days (it then fires at
 * once) and stands still while the device sleeps, so this one looks at the clock again and again.
 */
import type { Clock } from './environment.ts'

/** How late an alarm can be after a sleep that nothing announced. */
const TICK_MS = 30_000

export class Alarm {
  readonly #clock: Clock
  readonly #ring: () => void
  #atMs = Number.POSITIVE_INFINITY
  #cancelTimer: () => void = () => {}

  constructor(clock: Clock, ring: () => void) {
    this.#clock = clock
    this.#ring = ring
  }

  /** Rings once, at this moment or as soon as possible after it. Replaces what was set before. */
  set(atMs: number): void {
    this.clear()
    this.#atMs = atMs
    this.#wait()
  }

  clear(): void {
    this.#cancelTimer()
    this.#atMs = Number.POSITIVE_INFINITY
  }

  /** Rings now if the moment has passed: for when the device may have slept. */
  check(): void {
    this.#cancelTimer()
    if (this.#atMs === Number.POSITIVE_INFINITY) return
    if (this.#clock.now() < this.#atMs) {
      this.#wait()
    } else {
      this.#atMs = Number.POSITIVE_INFINITY
      this.#ring()
    }
  }

  #wait(): void {
    const delayMs = Math.min(Math.max(this.#atMs - this.#clock.now(), 0), TICK_MS)
    this.#cancelTimer = this.#clock.setTimer(() => this.check(), delayMs)
  }
}
