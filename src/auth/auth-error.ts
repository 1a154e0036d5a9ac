/**
 * Why a token was refused: a closed set of reasons. The session sends the message to the client and closes with 4401;
 * neither reason nor message holds anything of the token.
 */

/** Every reason, with the words that the client gets. */
const AUTH_FAILURES = {
  too_large: 'The token is too large.',
  malformed: 'The token is not a signed JWT in compact form.',
  unsupported: 'The token asks for an extension ("crit") that is not supported.',
  wrong_algorithm: 'The token is not signed with the algorithm that this server accepts.',
  bad_signature: "The token's signature does not match the server's key.",
  no_expiry: 'The token has no "exp" claim, or one that is not a usable time.',
  expired: 'The token has expired.',
  not_yet_valid: 'The token is not valid yet, or its "nbf" claim is not a time.',
  wrong_issuer: 'The token is not from an issuer ("iss") that this server accepts.',
  wrong_audience: 'The token is not for an audience ("aud") that this server accepts.',
  duplicate_claims: 'The token has two claims whose names are the same, or differ only in case.',
  unusable_claims:
    'The token has claims that Postgres cannot hold: a NUL character, broken Unicode, too many or too deep ones.',
  bad_subject: 'The "sub" claim of the token must be a string, and its name in lower case.',
} as const

type AuthFailure = keyof typeof AUTH_FAILURES

export class AuthError extends Error {
  override readonly name = 'AuthError'
  readonly reason: AuthFailure

  constructor(reason: AuthFailure) {
    super(AUTH_FAILURES[reason])
    this.reason = reason
  }
}
