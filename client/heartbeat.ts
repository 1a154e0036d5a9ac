/**
 * Finds out that a socket is dead: a browser cannot send WebSocket pings, and a connection whose other end vanished
 * stays "open" for many minutes. Works against two functions, so that a fake socket is three lines.
 */
import type { Clock } from './environment.ts'

/** Below the 30 to 60 s after which proxies drop quiet connections. */
const PING_INTERVAL_MS = 25_000

/** Unanswered pings after which a socket counts as dead. */
const MISSED_MAX = 2

/** How long a socket may take to show life after the device may have slept. */
const PROBE_MS = 5_000

/** A timer that is this late means that the device slept, where no event says so. */
const SLEPT_MS = 10_000

interface HeartbeatParts {
  readonly clock: Clock
  readonly sendPing: () => void
  readonly onDead: () => void
}

export class Heartbeat {
  readonly #parts: HeartbeatParts
  #unanswered = 0
  #cancelPing: () => void = () => {}
  #cancelProbe: (() => void) | null = null

  constructor(parts: HeartbeatParts) {
    this.#parts = parts
  }

  start(): void {
    this.stop()
    this.#unanswered = 0
    this.#schedule()
  }

  stop(): void {
    this.#cancelPing()
    this.heard()
  }

  /** Something came from the other end; that is as good as a pong. */
  heard(): void {
    this.#unanswered = 0
    this.#cancelProbe?.()
    this.#cancelProbe = null
  }

  /** Asks for a sign of life now, and soon. */
  probe(): void {
    if (this.#cancelProbe !== null) return
    this.#cancelProbe = this.#parts.clock.setTimer(() => this.#parts.onDead(), PROBE_MS)
    this.#parts.sendPing()
  }

  #schedule(): void {
    const dueMs = this.#parts.clock.now() + PING_INTERVAL_MS
    this.#cancelPing = this.#parts.clock.setTimer(() => this.#tick(dueMs), PING_INTERVAL_MS)
  }

  #tick(dueMs: number): void {
    this.#schedule()
    if (this.#parts.clock.now() - dueMs > SLEPT_MS) {
      this.probe()
    } else if (this.#unanswered >= MISSED_MAX) {
      this.#parts.onDead()
    } else {
      this.#unanswered++
      this.#parts.sendPing()
    }
  }
}
