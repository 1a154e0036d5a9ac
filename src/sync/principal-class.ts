/**
 * A class is a principal as far as reading one table can tell it from others: the claims that the table's policies read
 * (db/policies.ts). Everybody in a class sees the same rows, so the database is asked once for all of them.
 */
import { projectPayload } from '../auth/payload-text.ts'
import { PAYLOAD_SETTING, type Principal } from '../auth/principal.ts'
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

/** What was made for a principal once: the views of a socket mostly share a table, and its payload may be 16 KiB of JSON. */
const classes = new WeakMap<Principal, WeakMap<Table, PrincipalClass>>()

/** The class of a principal in a table. Made once for the two, however many views ask. */
export function classOf(principal: Principal, table: Table): PrincipalClass {
  const ofPrincipal = classes.get(principal) ?? new WeakMap<Table, PrincipalClass>()
  const found = ofPrincipal.get(table) ?? makeClass(principal, table)
  classes.set(principal, ofPrincipal.set(table, found))
  return found
}

function makeClass(principal: Principal, table: Table): PrincipalClass {
  const settings = settingsOf(principal, table)
  const { reading } = table.policyReads
  // Not understood, or the whole payload is read: then any claim may count.
  if (reading === null || reading.settings.has(PAYLOAD_SETTING)) return { key: keyOf(settings), settings }
  const projected: Record<string, string> = {}
  for (const name of reading.settings) {
    const value = settings[name]
    if (value !== undefined) projected[name] = value
  }
  const payload = settings[PAYLOAD_SETTING]
  if (reading.payloadKeys.size > 0 && payload !== undefined) {
    const members = projectPayload(payload, reading.payloadKeys)
    if (members === null) return { key: keyOf(settings), settings }
    projected[PAYLOAD_SETTING] = members
  }
  return { key: keyOf(projected), settings: projected }
}

function keyOf(settings: ClaimSettings): string {
  return JSON.stringify(Object.entries(settings).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
}
