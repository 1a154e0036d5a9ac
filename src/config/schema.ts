/**
 * What each key of datum.yaml may hold. A message completes the sentence that begins with the key's name. Which keys
 * go together is for `load.ts` and `auth-section.ts` to say.
 */
import { z } from 'zod'
import { isAddressRange } from './address-range.ts'
import { ALGORITHMS, LOG_LEVELS } from './config.ts'
import { isIdentifier, parseTableName } from './table-name.ts'

/** Leeway beyond ten minutes is a clock to set right, not a tolerance. */
const CLOCK_TOLERANCE_SECONDS_MAX = 600

const text = z.string('must be text (in quotes, if it looks like a number)').min(1, 'must not be empty')

const TEXTS_WORDS = 'must be a text or a list of texts, none of them empty'

const texts = z
  .union([text, z.array(text).min(1, TEXTS_WORDS)], TEXTS_WORDS)
  .transform((value): readonly string[] => (typeof value === 'string' ? [value] : value))

const wholeNumber = (min: number, max: number, words: string) => z.int(words).min(min, words).max(max, words)

const flag = z.boolean('must be true or false')

const PORT_WORDS = 'must be a whole number from 0 (any free port) to 65535'
const RATE_WORDS = 'must be a whole number of edits per minute and IP address, 0 for no limit'
const TOLERANCE_WORDS = `must be a whole number of seconds from 0 to ${CLOCK_TOLERANCE_SECONDS_MAX}`
const ORIGIN_WORDS = 'must be an origin like "https://app.example.com", a list of them, or "*" for any'
const NAME_WORDS = 'must be the name of a table, as "name" or "schema.name", each at most 63 bytes long'

export const portSchema = wholeNumber(0, 65535, PORT_WORDS)

export const rateLimitSchema = wholeNumber(0, 1_000_000, RATE_WORDS)

const CONNECTIONS_WORDS = 'must be a whole number of open sockets per IP address, 0 for no limit'
const PROXIES_WORDS = 'must be an IP address or a range like "10.0.0.0/8", or a list of them'

const connectionsPerIpSchema = wholeNumber(0, 1_000_000, CONNECTIONS_WORDS)

const UNAUTHENTICATED_WORDS = 'must be a whole number of sockets without a token, 0 for no limit'
const HELD_ROWS_WORDS = 'must be a whole number of rows, 0 for no limit'
/** More rows than that are more memory than a machine has. */
const HELD_ROWS_MAX = 10_000_000_000

const unauthenticatedSchema = wholeNumber(0, 1_000_000, UNAUTHENTICATED_WORDS)

const heldRowsSchema = wholeNumber(0, HELD_ROWS_MAX, HELD_ROWS_WORDS)

const trustedProxiesSchema = z
  .union([z.string(), z.array(z.string()).min(1, PROXIES_WORDS)], PROXIES_WORDS)
  .transform((value): readonly string[] => (typeof value === 'string' ? [value] : value))
  .refine((ranges) => ranges.every(isAddressRange), PROXIES_WORDS)

export const hostSchema = text.refine(
  (host) => !/[\s/@]/.test(host),
  'must be a host name or an IP address, without scheme and port',
)

export const logLevelSchema = z.enum(LOG_LEVELS, `must be one of ${LOG_LEVELS.join(', ')}`)

/** The origins in the form that browsers send (RFC 6454 §6.2); null for any. */
export const allowedOriginSchema = z
  .union([z.string(), z.array(z.string()).min(1, ORIGIN_WORDS)], ORIGIN_WORDS)
  .transform((value, context): readonly string[] | null => {
    const given = typeof value === 'string' ? [value] : value
    if (given.includes('*')) return null
    const origins = given.map(normalOrigin)
    if (origins.includes(null)) context.addIssue({ code: 'custom', message: ORIGIN_WORDS })
    return origins.filter((origin) => origin !== null)
  })

export const tableNameSchema = text.transform((value, context) => {
  const name = parseTableName(value)
  if (name !== null) return name
  context.addIssue({ code: 'custom', message: NAME_WORDS })
  return z.NEVER
})

const column = text.refine(isIdentifier, 'must be the name of a column, at most 63 bytes long')

const tableSchema = z.strictObject(
  { name: tableNameSchema, col_id: column.optional(), col_geom: column.optional() },
  'must be a map with the key "name"',
)

export const authSchema = z.strictObject(
  {
    jwt_algorithm: z.enum(ALGORITHMS, `must be one of ${ALGORITHMS.join(', ')}`),
    jwt_public_key: text
      .refine((path) => !path.includes('-----BEGIN'), 'must be the path of a PEM file, not its content')
      .optional(),
    jwt_issuer: texts.optional(),
    jwt_audience: texts.optional(),
    clock_tolerance: wholeNumber(0, CLOCK_TOLERANCE_SECONDS_MAX, TOLERANCE_WORDS).optional(),
    enforce_expiry: flag.optional(),
  },
  'must be a map with the key "jwt_algorithm"',
)

/** Every key there is. */
export const fileSchema = z.strictObject({
  port: portSchema.optional(),
  host: hostSchema.optional(),
  allowed_origin: allowedOriginSchema.optional(),
  rate_limit: rateLimitSchema.optional(),
  max_connections_per_ip: connectionsPerIpSchema.optional(),
  max_unauthenticated_per_ip: unauthenticatedSchema.optional(),
  max_unauthenticated: unauthenticatedSchema.optional(),
  max_held_rows: heldRowsSchema.optional(),
  trusted_proxies: trustedProxiesSchema.optional(),
  log_level: logLevelSchema.optional(),
  table: tableSchema.optional(),
  tables: z.array(tableSchema, 'must be a list of tables').min(1, 'must name at least one table').optional(),
  auth: authSchema.optional(),
  embedded: z
    .strictObject({ data_dir: text.optional(), init_sql: text.optional() }, 'must be a map')
    .optional(),
})

export type TableSection = z.output<typeof tableSchema>

/** The keys that a map at this place of the file may have; the first part of the path chooses. */
export function keysAt(path: readonly PropertyKey[]): readonly string[] {
  if (path.length === 0) return Object.keys(fileSchema.shape)
  return KEYS_OF[String(path[0])] ?? []
}

const KEYS_OF: Readonly<Record<string, readonly string[]>> = {
  table: Object.keys(tableSchema.shape),
  tables: Object.keys(tableSchema.shape),
  auth: Object.keys(authSchema.shape),
  embedded: ['data_dir', 'init_sql'],
}

/** The section a key belongs to, for a key that stands in the wrong place: "auth" for "jwt_issuer". */
export function sectionOf(key: string): string | null {
  if (Object.hasOwn(fileSchema.shape, key)) return ''
  return Object.keys(KEYS_OF).find((section) => KEYS_OF[section]!.includes(key)) ?? null
}

function normalOrigin(value: string): string | null {
  let url: URL
  try {
    url = new URL(value)
  } catch {
    return null
  }
  const extra = url.pathname.replace(/^\/$/, '') + url.search + url.hash + url.username + url.password
  if (extra !== '' || url.host === '') return null
  // Apps in a shell have origins of their own scheme (capacitor://localhost), which `URL.origin` does not name.
  return url.origin === 'null' ? `${url.protocol}//${url.host}` : url.origin
}
