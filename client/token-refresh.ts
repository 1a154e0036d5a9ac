/**
 * Decides when the token function is asked for the next token, and keeps asking until there is one. `connection.ts`
 * says which token the server has accepted and sends the new one.
 */
import { Alarm } from './alarm.ts'
import { backoffMs, TOKEN } from './backoff.ts'
import type { DatumError } from './datum-error.ts'
import type { Environment } from './environment.ts'
import { readToken, type TokenFacts } from './jwt.ts'
import type { TokenSource } from './token-source.ts'

/** How long before `exp` a refresh starts. */
const LEAD_MS = 60_000

/** A token that lives shorter than this cannot be refreshed 60 s ahead without asking for the next one at once. */
const SHORT_LIFE_MS = 120_000

/** Never sooner than this after a token was accepted, whatever its claims say. */
const SOONEST_MS = 1_000

/**
 * When to ask for the token after this one; null: never, as its end is unknown. Short-lived tokens, or such with
 * little time left of a short life, are refreshed after two thirds of what remains.
 */
export function refreshAtMs({ expiresAtMs, issuedAtMs }: TokenFacts, nowMs: number): number | null {
  if (expiresAtMs === null) return null
  const remainingMs = expiresAtMs - nowMs
  const lifeMs = Math.max(expiresAtMs - (issuedAtMs ?? nowMs), remainingMs)
  const waitMs = lifeMs < SHORT_LIFE_MS ? (remainingMs * 2) / 3 : remainingMs - LEAD_MS
  return nowMs + Math.max(waitMs, SOONEST_MS)
}

/**
 * How far this device's clock is ahead of the issuer's, as far as an accepted token shows it; 0 if nothing speaks
 * against the clock. Without this, a device whose clock is wrong by more than a token's life would never be refreshed
 * in time, or for ever.
 */
export function clockAheadMs({ expiresAtMs, issuedAtMs }: TokenFacts, nowMs: number): number {
  if (issuedAtMs !== null && issuedAtMs > nowMs) return nowMs - issuedAtMs
  // Accepted although long past its end: within a minute that can be the server's tolerance, beyond it is our clock.
  if (expiresAtMs !== null && nowMs - expiresAtMs > LEAD_MS)
    return nowMs - (issuedAtMs ?? expiresAtMs - LEAD_MS)
  return 0
}

interface TokenRefreshParts {
  readonly source: TokenSource
  readonly environment: Pick<Environment, 'clock' | 'random'>
  /** A new token that should be sent. Its acceptance is told by {@link TokenRefresh.accepted}. */
  readonly onToken: (token: string) => void
  /** The token function failed; it will be asked again. */
  readonly onFailure: (error: DatumError) => void
}

export class TokenRefresh {
  readonly #parts: TokenRefreshParts
  readonly #alarm: Alarm
  /** Grows when the token or the socket changes, so that an answer to an older question is recognised. */
  #round = 0
  #current = ''
  #failures = 0
  #aheadMs = 0

  constructor(parts: TokenRefreshParts) {
    this.#parts = parts
    this.#alarm = new Alarm(parts.environment.clock, () => void this.#refresh())
  }

  /** The server has accepted this token, on a new socket or as a refresh. */
  accepted(token: string): void {
    this.suspend()
    if (this.#parts.source.kind === 'static') return
    this.#current = token
    this.#failures = 0
    const facts = readToken(token)
    const ahead = clockAheadMs(facts, this.#now())
    this.#aheadMs += ahead
    const atMs = refreshAtMs(facts, this.#now())
    if (atMs !== null) this.#alarm.set(atMs + this.#aheadMs)
  }

  /** There is no socket to refresh: the next connect asks for a token of its own. */
  suspend(): void {
    this.#round++
    this.#alarm.clear()
  }

  /** The device may have slept. */
  wake(): void {
    this.#alarm.check()
  }

  /** The issuer's time, as far as known. */
  #now(): number {
    return this.#parts.environment.clock.now() - this.#aheadMs
  }

  async #refresh(): Promise<void> {
    const round = this.#round
    try {
      const token = await this.#parts.source.get()
      if (round !== this.#round) return
      // To send the same token again changes nothing, and one that has ended would cost us the socket.
      if (token !== this.#current && !this.#hasEnded(token)) return this.#parts.onToken(token)
      this.#askAgain()
    } catch (error) {
      if (round !== this.#round) return
      this.#askAgain()
      this.#parts.onFailure(error as DatumError)
    }
  }

  #askAgain(): void {
    const { clock, random } = this.#parts.environment
    this.#failures++
    this.#alarm.set(clock.now() + backoffMs(TOKEN, this.#failures, random))
  }

  #hasEnded(token: string): boolean {
    const { expiresAtMs, issuedAtMs } = readToken(token)
    if (expiresAtMs === null) return false
    return expiresAtMs <= Math.max(this.#now(), issuedAtMs ?? 0)
  }
}
