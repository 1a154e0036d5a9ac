/**
 * Who a socket speaks for. A principal is immutable: a refresh makes a new one and the session swaps it between
 * messages. Only `db/as-principal.ts` turns one into Postgres settings.
 */

/** The setting that holds the whole payload as JSON: the convention of PostgREST and Supabase. */
export const PAYLOAD_SETTING = 'request.jwt.claims'

export interface Principal {
  /** The `sub` claim as text; null where the token has none, or the server has no `auth:`. A refresh may not change it. */
  readonly subject: string | null
  /**
   * The Postgres settings that carry the claims: `datum.<claim>` by name as the token spells it, and the whole
   * payload as `request.jwt.claims`. Empty for the anonymous principal.
   */
  readonly settings: ReadonlyMap<string, string>
  /** `exp` in seconds since 1970; null for the anonymous principal. */
  readonly expiresAt: number | null
}

/**
 * Who a principal is, in one text: what is counted and recorded of a user goes by it. Null where the token has no `sub`.
 * Issuers may reuse each other's subjects (RFC 7519 §4.1.2), so `iss` is part of it, and no address looks like it.
 */
export function subjectOf({ subject, settings }: Principal): string | null {
  return subject === null ? null : JSON.stringify([settings.get('datum.iss') ?? null, subject])
}

/** Whether a token is the next one of the same user: the same `sub`, and of the same issuer where both name theirs. */
export function isSameUser(before: Principal, after: Principal): boolean {
  const [issuer, issuerAfter] = [before.settings.get('datum.iss'), after.settings.get('datum.iss')]
  const isOfAnother = issuer !== undefined && issuerAfter !== undefined && issuer !== issuerAfter
  return before.subject === after.subject && !isOfAnother
}

/** The principal of every socket on a server without `auth:`. Sets nothing, so Postgres sees the plain role. */
export const ANONYMOUS: Principal = { subject: null, settings: new Map(), expiresAt: null }
