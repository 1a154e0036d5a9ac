/** Tokens for tests, signed with the secret that the fixture gives to the server. */
import { SignJWT } from 'jose'

export const TEST_SECRET = new TextEncoder().encode('a secret of tests, longer than the 32 bytes of HS256')

export type Claims = Readonly<Record<string, unknown>>

/** An HS256 token with these claims and, unless they say otherwise, an `exp` an hour from now. */
export async function mintToken(claims: Claims, secret: Uint8Array = TEST_SECRET): Promise<string> {
  const exp = 'exp' in claims ? claims.exp : Math.floor(Date.now() / 1000) + 3600
  return new SignJWT({ ...claims, exp } as Record<string, unknown>)
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .sign(secret)
}

/**
 * As {@link mintToken}, but with the payload's exact text: for numbers that JavaScript cannot hold, duplicate keys
 * and other things `JSON.stringify` does not write. The text must contain `exp` itself.
 */
export async function mintTokenOfText(payload: string, secret: Uint8Array = TEST_SECRET): Promise<string> {
  const encode = (text: string) => Buffer.from(text).toString('base64url')
  const signed = `${encode('{"alg":"HS256","typ":"JWT"}')}.${encode(payload)}`
  const mac = new Bun.CryptoHasher('sha256', secret).update(signed).digest('base64url')
  return `${signed}.${mac}`
}
