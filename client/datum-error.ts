/**
 * The one error that the client rejects with and reports. Its code is from a closed set, so that an application can
 * branch on it; its message is for people and never holds a token.
 */
import type { EndCode, RejectionCode } from '../src/wire/messages.ts'

/**
 * Why something failed. Beside the server's own codes for a refused edit ({@link RejectionCode}) and for a
 * subscription that is over ({@link EndCode}):
 *
 * - `unauthorized`: the server refused the token, or asks for one that was not given.
 * - `token_failed`: the token function threw, took too long, or returned something that is no token.
 * - `disconnected`: `disconnect()` was called, or the connection has ended for good.
 * - `queue_full`: too many edits wait for the server.
 * - `bad_message`: client and server do not understand each other; one of them is too old.
 * - `timeout` and `invalid` are also used by the client itself: `connectTimeout` has passed, an argument is wrong.
 */
export type DatumErrorCode =
  | RejectionCode
  | EndCode
  | 'unauthorized'
  | 'token_failed'
  | 'disconnected'
  | 'queue_full'
  | 'bad_message'

export class DatumError extends Error {
  override readonly name = 'DatumError'
  readonly code: DatumErrorCode

  /** `cause` is what the application's own token function threw; the client never prints it. */
  constructor(code: DatumErrorCode, message: string, options?: { readonly cause?: unknown }) {
    super(message, options)
    this.code = code
  }
}
