/**
 * Gets tokens from the application: one call at a time, each with a time limit. Used by `connection.ts` on every
 * connect and by `token-refresh.ts` in between.
 */
import { TOKEN_BYTES_MAX } from '../src/wire/limits.ts'
import { DatumError } from './datum-error.ts'
import type { Clock } from './environment.ts'

/** A string that stays what it is, or a function that is called whenever a token is needed. */
export type Token = string | (() => string | Promise<string>)

/** Longer than a slow login endpoint takes, shorter than the 60 s that a token mostly has left when its refresh starts. */
const CALL_LIMIT_MS = 20_000

export class TokenSource {
  readonly kind: 'static' | 'function'
  readonly #token: Token
  readonly #clock: Clock
  #call: Promise<string> | null = null
  #abandon: () => void = () => {}

  constructor(token: Token, clock: Clock) {
    this.kind = typeof token === 'string' ? 'static' : 'function'
    this.#token = token
    this.#clock = clock
  }

  /** A token now. While a call is under way everybody waits for that one. Rejects with `token_failed`. */
  get(): Promise<string> {
    this.#call ??= this.#ask().finally(() => {
      this.#call = null
    })
    return this.#call
  }

  /** Stops waiting for a call: its result is of no use any more. */
  stop(): void {
    this.#abandon()
  }

  #ask(): Promise<string> {
    return new Promise((resolve, reject) => {
      const fail = (problem: string, cause?: unknown) => {
        cancelLimit()
        reject(new DatumError('token_failed', `The token function ${problem}.`, { cause }))
      }
      // A call past its limit is written off: waiting for it for ever would mean never to ask again.
      const cancelLimit = this.#clock.setTimer(
        () => fail(`took longer than ${CALL_LIMIT_MS / 1000} s`),
        CALL_LIMIT_MS,
      )
      this.#abandon = () => fail('is not needed any more')
      this.#callApplication().then(
        (token) => {
          const problem = tokenProblem(token)
          if (problem !== null) return fail(`returned ${problem}`)
          cancelLimit()
          resolve(token)
        },
        (error: unknown) => fail('failed', error),
      )
    })
  }

  async #callApplication(): Promise<string> {
    return typeof this.#token === 'string' ? this.#token : this.#token()
  }
}

/** What is wrong with a value that should be a token, or null. Does not quote the value. */
export function tokenProblem(token: unknown): string | null {
  if (typeof token !== 'string') return 'something that is no string'
  if (token === '') return 'an empty string'
  if (token.length > TOKEN_BYTES_MAX) return `more than ${TOKEN_BYTES_MAX} bytes`
  return null
}
