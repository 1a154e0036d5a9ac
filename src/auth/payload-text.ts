/**
 * Reads the members of a JSON object as pieces of its text. `JSON.parse` decides what is JSON; the walk after it finds
 * where each member begins and ends, and refuses what Postgres or another parser would read differently.
 */
import { CLAIM_NESTING_MAX } from '../wire/limits.ts'
import { AuthError } from './auth-error.ts'

export interface PayloadMember {
  readonly name: string
  /** The value's JSON, as the text spells it but without white space between the tokens. */
  readonly json: string
  /** The value's JSON, letter by letter as it is in the text. */
  readonly raw: string
}

/** The tokens of valid JSON, after optional white space: a string, one of `{}[],:`, or a number or literal. */
const JSON_TOKEN = /[ \t\n\r]*("(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+)/y

/**
 * Lists the members of the object that `text` is, in its order.
 * @throws AuthError if it is no JSON object, names a member twice (at any depth), holds a NUL character or a lone
 * surrogate (neither can be in a Postgres text), or nests too deeply.
 */
export function readPayload(text: string): readonly PayloadMember[] {
  if (!isJsonObject(text)) throw new AuthError('malformed')
  const tokens = tokenize(text)
  const members: PayloadMember[] = []
  // The names seen so far in each open object; null for an open array.
  const open: (Set<string> | null)[] = []
  let name = ''
  let json = ''
  let start = 0
  let end = 0
  for (const [index, { token, at }] of tokens.entries()) {
    const names = open.at(-1)
    const isName = names != null && token.startsWith('"') && tokens[index + 1]?.token === ':'
    if (isName) {
      const key = JSON.parse(token) as string
      if (names.has(key)) throw new AuthError('duplicate_claims')
      names.add(key)
      if (open.length === 1) {
        name = key
        continue
      }
    }
    const closesPayload = token === '}' && open.length === 1
    if (open.length === 1 && (token === ',' || closesPayload)) {
      if (json !== '') members.push({ name, json, raw: text.slice(start, end) })
      json = ''
    } else if (open.length > 1 || (open.length === 1 && token !== ':')) {
      if (json === '') start = at
      json += token
      end = at + token.length
    }
    if (token === '{') open.push(new Set())
    if (token === '[') open.push(null)
    if (token === '}' || token === ']') open.pop()
    if (open.length > CLAIM_NESTING_MAX) throw new AuthError('unusable_claims')
  }
  return members
}

/** Numbers whose exponent Postgres may find too large for its `numeric`, which is an error of the whole payload there. */
const LARGE_EXPONENT = /[eE][-+]?0*[1-9]\d{3}/

/**
 * The payload without all members but those of the given names: what is read of these is read alike in both. Null where
 * that cannot be promised: a value that Postgres cannot make `jsonb` of raises an error in whichever member it is.
 */
export function projectPayload(text: string, names: ReadonlySet<string>): string | null {
  const members = readPayload(text)
  if (members.some(({ json }) => LARGE_EXPONENT.test(json))) return null
  const kept = members.filter(({ name }) => names.has(name)).sort((a, b) => (a.name < b.name ? -1 : 1))
  return `{${kept.map(({ name, raw }) => `${JSON.stringify(name)}:${raw}`).join(',')}}`
}

function isJsonObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
  } catch {
    return false
  }
}

function tokenize(text: string): readonly { readonly token: string; readonly at: number }[] {
  const tokens: { token: string; at: number }[] = []
  JSON_TOKEN.lastIndex = 0
  for (let match = JSON_TOKEN.exec(text); match !== null; match = JSON_TOKEN.exec(text)) {
    const token = match[1]!
    if (token.startsWith('"')) requireStorable(JSON.parse(token) as string)
    tokens.push({ token, at: JSON_TOKEN.lastIndex - token.length })
  }
  return tokens
}

function requireStorable(text: string): void {
  if (text.includes('\0') || !text.isWellFormed()) throw new AuthError('unusable_claims')
}
