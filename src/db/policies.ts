/**
 * Which claims a table's policies read. Two users whose claims agree in these see the same rows, so they can share one
 * read. The reading is conservative: whatever is not recognised as harmless makes it inconclusive, and then only users
 * with the very same payload share (never guess towards sharing).
 */
import type { Sql } from 'postgres'

export interface PolicyReads {
  /** Settings that policies read by a literal name, lower case: `datum.org_id`, `request.jwt.claims`. */
  readonly settings: ReadonlySet<string>
  /** Whether `settings` is all that a policy's answer can depend on, apart from the row. */
  readonly conclusive: boolean
}

/**
 * Functions that a policy may call without its answer depending on anything but their arguments (and the clock). All
 * live in pg_catalog; `current_setting` and `claim` are dealt with on their own.
 */
const PURE_FUNCTIONS = new Set([
  'coalesce',
  'nullif',
  'greatest',
  'least',
  'lower',
  'upper',
  'btrim',
  'ltrim',
  'rtrim',
  'length',
  'left',
  'right',
  'substring',
  'split_part',
  'starts_with',
  'string_to_array',
  'array_position',
  'array_length',
  'cardinality',
  'any',
  'all',
  'array',
  'row',
  'in',
  'and',
  'or',
  'not',
  'case',
  'when',
  'then',
  'else',
  'is',
  'now',
  'md5',
  'abs',
  'date_trunc',
  'to_timestamp',
  'jsonb_array_length',
  'char_length',
  'replace',
  'concat',
  'as',
  'varchar',
  'numeric',
  'bpchar',
  'character',
  'varying',
  'timestamp',
  'time',
  'interval',
  'between',
  'like',
  'similar_escape',
])

/** PostGIS's functions depend on their arguments only, but for these, which query a table. */
const QUERYING_FUNCTIONS = new Set([
  'st_findextent',
  'st_estimatedextent',
  'st_estimated_extent',
  'st_find_extent',
])

/** Relations and switches of the session that a policy could read claims through. */
const OPAQUE = /\b(from|select|pg_settings|current_user|session_user|user|current_role|operator)\b/i

interface PolicyRow {
  expression: string
  depends_on_code: boolean
}

export async function readPolicies(sql: Sql, tableOid: number): Promise<PolicyReads> {
  const rows = await sql<PolicyRow[]>`
    select concat_ws(' ; ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) as expression,
           exists (
             select from pg_depend d
              where d.classid = 'pg_policy'::regclass and d.objid = p.oid
                and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_class'::regclass)
                and not (d.refclassid = 'pg_class'::regclass and d.refobjid = p.polrelid)
                and not (d.refclassid = 'pg_proc'::regclass
                         and d.refobjid = to_regprocedure('datum.claim(text)'))
                and not exists (select from pg_depend e join pg_extension x on x.oid = e.refobjid and x.extname = 'postgis'
                                 where e.classid = d.refclassid and e.objid = d.refobjid
                                   and e.refclassid = 'pg_extension'::regclass and e.deptype = 'e')
           ) as depends_on_code
      from pg_policy p where p.polrelid = ${tableOid}`
  const settings = new Set<string>()
  let conclusive = true
  for (const row of rows) {
    const reads = readExpression(row.expression)
    for (const name of reads.settings) settings.add(name)
    if (!reads.conclusive || row.depends_on_code) conclusive = false
  }
  return { settings, conclusive }
}

/**
 * What is understood as a whole: a setting read by a constant name, a claim likewise, a quoted function (refused), a
 * quoted name, a constant. As `pg_get_expr` prints them.
 */
const TOKENS =
  /\bcurrent_setting\(\s*'((?:[^'\\]|'')+)'::text(?:\s*,\s*(?:true|false))?\s*\)|\bdatum\.claim\(\s*'((?:[^'\\]|'')+)'::text\s*\)|"(?:[^"]|"")*"\s*\(|"(?:[^"]|"")*"|E?'(?:[^']|'')*'/gi

/** The settings that one policy's expression reads, as `pg_get_expr` prints it. */
export function readExpression(expression: string): PolicyReads {
  const settings = new Set<string>()
  // One pass from left to right, so that neither a quoted name nor a constant can pass for code, or hide it.
  const code = expression.replace(TOKENS, (token: string, setting?: string, claim?: string) => {
    if (setting !== undefined) settings.add(setting.toLowerCase())
    else if (claim !== undefined) settings.add(`datum.${claim.toLowerCase()}`)
    else if (token.endsWith('(')) return ' "quoted function" ('
    return ' value '
  })
  let conclusive = !OPAQUE.test(code) && !code.includes('"')
  for (const [, name = ''] of code.matchAll(/([A-Za-z_][\w$]*)\s*\(/g)) {
    const isSpatial = /^st_[a-z0-9_]+$/.test(name) && !QUERYING_FUNCTIONS.has(name)
    const harmless = isSpatial || PURE_FUNCTIONS.has(name.toLowerCase())
    if (!harmless) conclusive = false
  }
  return { settings, conclusive }
}
