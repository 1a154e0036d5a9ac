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

/** The principal of every socket on a server without `auth:`. Sets nothing, so Postgres sees the plain role. */
export const ANONYMOUS: Principal = { subject: null, settings: new Map(), expiresAt: null }
