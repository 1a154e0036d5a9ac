/**
 * A token in, a principal out, or an `AuthError`. The algorithm and the key are the configured ones: nothing in the
 * token's own header chooses either. `claims.ts` makes the principal of the verified payload.
 */
import { errors, jwtVerify } from 'jose'
import type { AuthConfig } from '../config/config.ts'
import { TOKEN_BYTES_MAX } from '../wire/limits.ts'
import { AuthError } from './auth-error.ts'
import { principalFromPayload } from './claims.ts'
import { importVerificationKey } from './keys.ts'
import type { Principal } from './principal.ts'

export interface Verifier {
  /**
   * Verifies a token as of `now`.
   * @throws AuthError with the reason, for every token that is not good. Nothing else.
   */
  verify(token: string, now?: Date): Promise<Principal>
}

/** The last second that a `Date` can name (ECMA-262 §21.4.1.1). An `exp` past it could not be kept to. */
const EXPIRY_SECONDS_MAX = 8_640_000_000_000

/**
 * Makes the verifier of a configuration. The warnings of {@link importVerificationKey} are the command's to show.
 * @throws OperatorError where the key is of no use.
 */
export async function createVerifier(auth: AuthConfig): Promise<Verifier> {
  const { key } = await importVerificationKey(auth)
  const options = {
    algorithms: [auth.algorithm],
    requiredClaims: ['exp'],
    clockTolerance: auth.clockToleranceSeconds,
    ...(auth.issuers && { issuer: [...auth.issuers] }),
    ...(auth.audiences && { audience: [...auth.audiences] }),
  }
  return {
    async verify(token, now = new Date()) {
      const payload = payloadBytes(token)
      try {
        const { protectedHeader } = await jwtVerify(token, key, { ...options, currentDate: now })
        // jose knows one extension (b64, RFC 7797); none has a meaning for a JWT here.
        if ('crit' in protectedHeader) throw new AuthError('unsupported')
      } catch (error) {
        throw asAuthError(error)
      }
      const principal = principalFromPayload(decodeUtf8(payload))
      if (principal.expiresAt > EXPIRY_SECONDS_MAX) throw new AuthError('no_expiry')
      return principal
    },
  }
}

/** The middle part, once the token has the size and the form of a JWS in compact serialization (RFC 7515 §7.1). */
function payloadBytes(token: string): Uint8Array {
  // A UTF-16 length is at most the length in bytes, and a token of more bytes than characters is no base64url.
  if (token.length > TOKEN_BYTES_MAX) throw new AuthError('too_large')
  const parts = token.split('.')
  const decoded = parts.map((part) => Buffer.from(part, 'base64url'))
  // Decoders forgive padding, white space and stray bits. Asking for the one canonical text gives each token one form.
  const canonical = decoded.every(
    (bytes, index) => bytes.length > 0 && bytes.toString('base64url') === parts[index],
  )
  if (parts.length !== 3 || !canonical) throw new AuthError('malformed')
  return decoded[1]!
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new AuthError('malformed')
  }
}

/** Maps jose's errors, whose messages and `payload` may hold parts of the token, to the closed set. */
function asAuthError(error: unknown): AuthError {
  if (error instanceof AuthError) return error
  if (error instanceof errors.JWTExpired) return new AuthError('expired')
  if (error instanceof errors.JWSSignatureVerificationFailed) return new AuthError('bad_signature')
  if (error instanceof errors.JOSEAlgNotAllowed) return new AuthError('wrong_algorithm')
  if (error instanceof errors.JOSENotSupported) return new AuthError('unsupported')
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === 'exp') return new AuthError('no_expiry')
    if (error.claim === 'nbf') return new AuthError('not_yet_valid')
    if (error.claim === 'iss') return new AuthError('wrong_issuer')
    if (error.claim === 'aud') return new AuthError('wrong_audience')
  }
  return new AuthError('malformed')
}
