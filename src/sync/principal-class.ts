/**
 * A class is a principal as far as one table's policies can tell it from others: the claims they read. Everybody in a
 * class sees the same rows, so the database is asked once for all of them.
 */
import type { Principal } from '../auth/principal.ts'
import type { ClaimSettings } from '../db/as-principal.ts'
import type { Table } from '../db/catalog.ts'

export interface PrincipalClass {
  /** Equal for two principals exactly if they may share a read of this table. */
  readonly key: string
  /** What to set for that read. */
  readonly settings: ClaimSettings
}

/** Names that Postgres accepts for a setting of ours (Postgres §20.16); a policy can ask for others, always in vain. */
const SETTABLE = /^datum(?:\.[a-z_][a-z0-9_$]*)+$/

/**
 * Every setting of the principal, and '' for what the policies read and the token lacks: Postgres reads an absent
 * setting as NULL on a new connection but as '' once any transaction had set it, and policies must not see that.
 */
export function settingsOf(principal: Principal, table: Table): ClaimSettings {
  const settings: Record<string, string> = {}
  if (principal.settings.size === 0) return settings
  for (const name of table.policyReads.settings) {
    if (SETTABLE.test(name)) settings[name] = ''
  }
  for (const [name, value] of principal.settings) settings[name.toLowerCase()] = value
  return settings
}

export function classOf(principal: Principal, table: Table): PrincipalClass {
  if (!table.rowSecurity) return { key: '', settings: {} }
  const settings = settingsOf(principal, table)
  const { conclusive, settings: reads } = table.policyReads
  // request.jwt.claims is the whole payload: whoever reads it may read any claim.
  if (!conclusive || reads.has('request.jwt.claims')) return { key: keyOf(settings), settings }
  const projected: Record<string, string> = {}
  for (const name of reads) {
    const value = settings[name]
    if (value !== undefined) projected[name] = value
  }
  return { key: keyOf(projected), settings: projected }
}

function keyOf(settings: ClaimSettings): string {
  return JSON.stringify(Object.entries(settings).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
}
