/**
 * The text of a verified payload → the principal it stands for, as Postgres settings. Values are cut out of the text
 * (`payload-text.ts`), never taken from JavaScript values, so that a number keeps every digit. `db/as-principal.ts`
 * sets what is made here.
 */
import { CLAIMS_MAX } from '../wire/limits.ts'
import { AuthError } from './auth-error.ts'
import { type PayloadMember, readPayload } from './payload-text.ts'
import { PAYLOAD_SETTING, type Principal } from './principal.ts'

/** A principal that came from a token, so it has an end. */
interface TokenPrincipal extends Principal {
  readonly expiresAt: number
}

/** Names that `set_config` takes after the prefix. It also takes letters beyond ASCII, in some encodings only. */
const SETTING_NAME = /^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*$/

/**
 * Makes the principal of a payload: `datum.<claim>` for each claim with a name that a setting can have, and the whole
 * payload. Strings as they are, numbers as the token spells them, booleans as `true` and `false`, objects and arrays
 * as compact JSON, null as ''.
 * @throws AuthError where the payload cannot be carried over to Postgres faithfully.
 */
export function principalFromPayload(text: string): TokenPrincipal {
  const members = readPayload(text)
  if (members.length > CLAIMS_MAX) throw new AuthError('unusable_claims')
  refuseNamesThatCollide(members)

  const settings = new Map<string, string>()
  for (const { name, json } of members) {
    if (SETTING_NAME.test(name)) settings.set(`datum.${name}`, settingValue(json))
  }
  settings.set(PAYLOAD_SETTING, text)

  return { subject: subjectOf(members), settings, expiresAt: expiryOf(members) }
}

function settingValue(json: string): string {
  if (json === 'null') return ''
  return json.startsWith('"') ? (JSON.parse(json) as string) : json
}

/** Postgres compares the names of settings without regard to ASCII case: of two such claims one would hide the other. */
function refuseNamesThatCollide(members: readonly PayloadMember[]): void {
  const seen = new Set<string>()
  for (const { name } of members) {
    const folded = name.replace(/[A-Z]/g, (letter) => letter.toLowerCase())
    if (seen.has(folded)) throw new AuthError('duplicate_claims')
    seen.add(folded)
  }
}

/**
 * The `sub` claim: a StringOrURI (RFC 7519 §4.1.2). A claim `SUB` would be `datum.sub` to a policy but not the subject
 * that a refresh may not change, so it is refused.
 */
function subjectOf(members: readonly PayloadMember[]): string | null {
  const member = members.find(({ name }) => name.toLowerCase() === 'sub')
  if (member === undefined) return null
  if (member.name !== 'sub' || !member.json.startsWith('"')) throw new AuthError('bad_subject')
  return JSON.parse(member.json) as string
}

function expiryOf(members: readonly PayloadMember[]): number {
  const json = members.find(({ name }) => name === 'exp')?.json ?? ''
  const seconds = /^[-0-9]/.test(json) ? Number(json) : Number.NaN
  if (!Number.isFinite(seconds)) throw new AuthError('no_expiry')
  return seconds
}
