/**
 * The demo's own issuer of tokens, standing in for the login of an application. It hands a token to whoever asks,
 * which is why the demo listens on the loopback address only.
 */
import { SignJWT } from 'jose'
import type { Identity } from './identities.ts'

/** Short, so that one can watch the client renew it: it does so 60 seconds before the end. */
const TOKEN_LIFETIME_SECONDS = 120

export const TOKEN_ISSUER = 'datum-demo'

/** Signs with HS256, which `run.ts` also tells the server. */
export async function signToken(identity: Identity, secret: Uint8Array): Promise<string> {
  const org = identity.orgId === null ? {} : { org_id: identity.orgId }
  return await new SignJWT({ ...org, role: identity.role, name: identity.name })
    .setProtectedHeader({ alg: 'HS256' })
    .setIssuer(TOKEN_ISSUER)
    .setSubject(identity.id)
    .setIssuedAt()
    .setExpirationTime(`${TOKEN_LIFETIME_SECONDS}s`)
    .sign(secret)
}
