/**
 * What the client reads off its own token. Nothing is verified here (only the server can), and a token that is no JWT
 * is not an error: it just has no known end.
 */

export interface TokenFacts {
  /** `exp`, in milliseconds since 1970; null if unknown. */
  readonly expiresAtMs: number | null
  /** `iat`, in milliseconds since 1970; null if unknown. */
  readonly issuedAtMs: number | null
  /** `sub` as text; null if unknown. */
  readonly subject: string | null
  /**
   * The payload's text without what changes from token to token of one login. While it is the same, rows that were
   * read under an earlier token are still this token's rows.
   */
  readonly claims: string
}

const OPAQUE: TokenFacts = { expiresAtMs: null, issuedAtMs: null, subject: null, claims: '' }

/** Compared as text and not as values: JavaScript would take two large integer claims for equal. */
const PASSING_CLAIMS = /"(?:exp|iat|nbf|jti)"\s*:\s*(?:"[^"]*"|[-+.\dEe]+)\s*,?/g

export function readToken(token: string): TokenFacts {
  try {
    const text = decodeBase64Url(token.split('.')[1] ?? '')
    const payload: unknown = JSON.parse(text)
    if (typeof payload !== 'object' || payload === null) return OPAQUE
    const { exp, iat, sub } = payload as { exp?: unknown; iat?: unknown; sub?: unknown }
    return {
      expiresAtMs: msOf(exp),
      issuedAtMs: msOf(iat),
      subject: typeof sub === 'string' || typeof sub === 'number' ? String(sub) : null,
      claims: text.replace(PASSING_CLAIMS, ''),
    }
  } catch {
    return OPAQUE
  }
}

/** NumericDate (RFC 7519 §2): seconds, maybe with a fraction. */
function msOf(seconds: unknown): number | null {
  return typeof seconds === 'number' && Number.isFinite(seconds * 1000) ? seconds * 1000 : null
}

/** base64url (RFC 4648 §5) of UTF-8. `atob` gives bytes as characters, which is not yet text. */
function decodeBase64Url(encoded: string): string {
  const binary = atob(encoded.replace(/-/g, '+').replace(/_/g, '/'))
  return new TextDecoder().decode(Uint8Array.from(binary, (character) => character.charCodeAt(0)))
}
