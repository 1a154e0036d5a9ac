/**
 * Why a socket was closed. Codes 4000–4999 are for applications (RFC 6455 §7.4.2); 1012 is IANA's "service restart".
 * Shared by server and client; part of the public surface.
 */
export const CloseCode = {
  /** A frame was not a message of this protocol. Reconnecting will not help: it is a bug in the sender. */
  badMessage: 4400,
  /** No token, a token that does not verify, another `sub` or `iss` than before, or (with `enforce_expiry`) past `exp`. */
  unauthorized: 4401,
  /** Nothing authenticated the socket within {@link import('./limits.ts').AUTH_DEADLINE_SECONDS}. */
  authTimeout: 4408,
  /** A frame was larger than what is allowed at this point of the conversation. */
  tooLarge: 4413,
  /** More messages on this socket than may come, or may wait. Back off before trying again. */
  rateLimited: 4429,
  /** The server is going away, or made a mistake of its own: reconnect, with jitter, and resume. */
  restart: 1012,
} as const

export type CloseCode = (typeof CloseCode)[keyof typeof CloseCode]
