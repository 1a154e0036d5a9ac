/**
 * Which claims a table's policies read. Principals whose claims agree in these see the same rows, so they share one read.
 *
 * The reading is of parse trees, in which every name is resolved: no spelling, quoting or search_path can make one thing
 * look like another. It is conclusive only if every node, function, operator, type and table in reach is known to add
 * nothing to what it depends on; whatever is not known makes it inconclusive, and then only principals with the very
 * same payload share (never guess towards sharing). What is understood, and why it is sound:
 *
 * - Only `current_setting` reads claims, and what it names is a constant, or put together of constants with `||`.
 * - Reads are decided by USING of the policies FOR SELECT and FOR ALL alone (Postgres, CREATE POLICY, table of policies
 *   applied by command type); WITH CHECK and policies for writes say nothing about what is seen.
 * - `request.jwt.claims` is the whole payload, except where every use takes one member by a constant key
 *   (`current_setting(…)::jsonb ->> 'org_id'`): a payload of those members alone gives the same answers.
 * - Functions in SQL whose body was parsed when they were made (`RETURN …`, `BEGIN ATOMIC`), `datum.claim` among them,
 *   are read like the policy. Bodies in quotes are not: they are parsed anew at each call, under whatever search_path is
 *   then in force, and in PL/pgSQL they are programs.
 * - Sub-selects depend on the rows of their tables, which are the same for everybody, and on the policies of those
 *   tables, which are read likewise, for whichever role they are. Views and foreign tables are not followed.
 * - Built-in functions that Postgres calls immutable, and some that depend on the clock and on settings of the server's
 *   role besides. Types must be built in as well, or enums, since comparing and printing runs the type's code.
 *
 * What was concluded holds as long as `datum.fingerprint` does not change: it covers everything that is followed here.
 */

import type { Sql } from 'postgres'
import { PAYLOAD_SETTING } from '../auth/principal.ts'
import { isList, isNode, type TreeNode, type TreeValue } from './node-tree.ts'
import {
  type FunctionCode,
  loadPolicyCode,
  OID_FIELDS,
  oidsIn,
  type PolicyCode,
  type Tree,
} from './policy-code.ts'

export interface PolicyReads {
  /** Settings that any policy names, lower case: `datum.org_id`, `request.jwt.claims`. */
  readonly settings: ReadonlySet<string>
  /** What reading depends on, apart from the row and what is the same for everybody. Null: it is not known. */
  readonly reading: Reading | null
  /**
   * Whether a plan that was made under one principal's claims is right under another's. Postgres evaluates functions that
   * are called IMMUTABLE while it plans (Postgres §38.7), also those that read a claim and are called so by mistake.
   */
  readonly plansHold: boolean
  /**
   * Whether reading depends on nothing but the row and the claims: no other table, no clock. If so, rows come into view
   * and leave it only with a change of theirs.
   */
  readonly rowAlone: boolean
}

export interface Reading {
  /** Lower case. With `request.jwt.claims` among them: on any claim. */
  readonly settings: ReadonlySet<string>
  /** Members of the payload. */
  readonly payloadKeys: ReadonlySet<string>
}

/** Reads that depend on no claim. */
export const NO_CLAIMS: Reading = { settings: new Set(), payloadKeys: new Set() }

export async function readPolicies(sql: Sql, tableOid: number): Promise<PolicyReads> {
  const code = await loadPolicyCode(sql, tableOid)
  const reading = new Reader(code)
  reading.relation(String(tableOid))
  const writing = new Reader(code)
  for (const tree of code.writing) writing.read(tree)
  // In other encodings a character of one member may be an error of the whole payload when it is made `jsonb`.
  if (reading.payloadKeys.size > 0 && !(await isUtf8(sql))) reading.settings.add(PAYLOAD_SETTING)
  return {
    settings: new Set([...reading.settings, ...writing.settings]),
    reading: reading.isConclusive ? { settings: reading.settings, payloadKeys: reading.payloadKeys } : null,
    plansHold: reading.plansHold,
    rowAlone: reading.isConclusive && reading.rowAlone,
  }
}

async function isUtf8(sql: Sql): Promise<boolean> {
  const [row] = await sql<{ encoding: string }[]>`select getdatabaseencoding() as encoding`
  return row?.encoding === 'UTF8'
}

/** Nodes that compute from their parts only. Names differ between Postgres 15 and 16. */
const UNDERSTOOD = new Set(
  `VAR CONST PARAM OPEXPR DISTINCTEXPR NULLIFEXPR SCALARARRAYOPEXPR BOOLEXPR FUNCEXPR RELABELTYPE COERCEVIAIO
  ARRAYCOERCEEXPR CASETESTEXPR CASE CASEEXPR WHEN CASEWHEN COALESCE COALESCEEXPR MINMAX MINMAXEXPR ARRAY ARRAYEXPR ROW
  ROWEXPR ROWCOMPARE ROWCOMPAREEXPR NULLTEST BOOLEANTEST SUBLINK COLLATE COLLATEEXPR SQLVALUEFUNCTION SUBSCRIPTINGREF
  AGGREF TARGETENTRY SORTGROUPCLAUSE FROMEXPR JOINEXPR RANGETBLREF RTE RANGETBLENTRY RTEPERMISSIONINFO
  RANGETBLFUNCTION COMMONTABLEEXPR ALIAS QUERY SETOPERATIONSTMT`.split(/\s+/),
)

/**
 * Fields that say nothing about what is read: where it stood in the text, names, type modifiers, collations, places in
 * other lists, and what repeats another field. Any other field must be known ({@link OID_FIELDS}), hold nodes, or be empty.
 */
const IRRELEVANT = new Set(
  `location list_start list_end stmt_location stmt_len querySource canSetTag isReturn commandType
  varno varattno vartypmod varcollid varnullingrels varlevelsup varnosyn varattnosyn
  consttypmod constcollid constlen constbyval constisnull constvalue paramkind paramid paramtypmod paramcollid
  opfuncid hashfuncid negfuncid opretset opcollid inputcollid useOr boolop funcretset funcvariadic funcformat funccollid
  resulttypmod resultcollid relabelformat coerceformat typeMod collation casecollid coalescecollid minmaxcollid op typmod
  array_collid multidims row_format colnames rctype cmptype opfamilies inputcollids nulltesttype argisrow booltesttype
  subLinkType subLinkId operName collOid reftypmod refcollid aggcollid aggtranstype aggstar aggvariadic aggkind
  aggpresorted agglevelsup aggsplit aggno aggtransno resno resname ressortgroupref resorigtbl resorigcol resjunk
  tleSortGroupRef reverse_sort nulls_first hashable jointype isNatural rtindex usingClause join_using_alias alias eref
  rtekind relkind rellockmode perminfoindex lateral inh inFromCl requiredPerms selectedCols insertedCols updatedCols
  extraUpdatedCols joinmergedcols joinleftcols joinrightcols funcordinality coltypmods colcollations ctename ctelevelsup
  self_reference funccolcount funccolnames funccoltypmods funccolcollations funcparams aliascolnames ctematerialized
  cterecursive cterefcount ctecolnames ctecoltypmods ctecolcollations hasAggs hasTargetSRFs hasSubLinks hasDistinctOn
  hasRecursive hasGroupRTE override groupDistinct limitOption all colTypmods colCollations aliasname
  mergeUseOuterJoin`.split(/\s+/),
)

/** `current_setting(text)` and `current_setting(text, boolean)`. */
const READS_SETTINGS = 'current_setting'
/** Oids of built-in operators never change: `text || text`, `text = text`, and `->`, `->>` of json and of jsonb by key. */
const CONCATENATION = '654'
const TEXT_EQUALS = '98'
const MEMBER_BY_KEY = new Set(['3962', '3963', '3211', '3477'])
const TEXT_TYPE = '25'
const JSON_TYPES = new Set(['114', '3802'])
/**
 * Oids of types whose text says all: bool, bytea, int8, int2, int4, text, json, cidr, float4, float8, inet, bpchar,
 * varchar, numeric, uuid, jsonb, and arrays of int2, int4, text, varchar, int8, uuid.
 */
const READ_FROM_TEXT_ALONE = new Set(
  '16 17 20 21 23 25 114 650 700 701 869 1042 1043 1700 2950 3802 1005 1007 1009 1015 1016 2951'.split(' '),
)
/** `ParamKind`: of a function's argument. */
const PARAM_EXTERN = '0'
/** `SubLinkType`: a sub-select for one value. */
const EXPR_SUBLINK = '4'
const CMD_SELECT = '1'

/** Functions that call each other more deeply than this are given up on, and those of more nodes than that. */
const CALLS_MAX = 16
const NODES_MAX = 200_000

/** The arguments of the call whose body is read, each with the arguments that it is to be understood by itself. */
interface Call {
  readonly values: readonly TreeValue[]
  readonly outer: Call | null
  readonly depth: number
}

class Reader {
  readonly settings = new Set<string>()
  readonly payloadKeys = new Set<string>()
  isConclusive = true
  plansHold = true
  rowAlone = true
  readonly #code: PolicyCode
  readonly #relations = new Set<string>()
  #nodes = 0

  constructor(code: PolicyCode) {
    this.#code = code
  }

  read(tree: Tree): void {
    if (tree === undefined) this.#unknown()
    else this.#value(tree, null)
  }

  #unknown(): void {
    this.isConclusive = false
    this.plansHold = false
  }

  #value(value: TreeValue, call: Call | null): void {
    if (isList(value)) for (const item of value) this.#value(item, call)
    else if (isNode(value)) this.#node(value, call)
  }

  /** Goes on after what is not understood, to find all settings that are named. */
  #node(node: TreeNode, call: Call | null): void {
    if (++this.#nodes > NODES_MAX) return this.#unknown()
    const key = this.#payloadKey(node, call)
    if (key !== null) {
      this.payloadKeys.add(key)
      return
    }
    if (!UNDERSTOOD.has(node.tag)) this.#unknown()
    if (node.tag === 'FUNCEXPR' || node.tag === 'AGGREF') this.#function(node, call)
    if (node.tag === 'QUERY' && node.fields.get('commandType') !== CMD_SELECT) this.#unknown()
    if (node.tag === 'PARAM' && node.fields.get('paramkind') === PARAM_EXTERN && call === null)
      this.#unknown()
    if (node.tag === 'SQLVALUEFUNCTION') this.rowAlone = false
    // 'now' and 'tomorrow' are times, too.
    if (node.tag === 'COERCEVIAIO' && !READ_FROM_TEXT_ALONE.has(String(node.fields.get('resulttype'))))
      this.rowAlone = false
    for (const [name, value] of node.fields) this.#field(name, value, call)
  }

  #field(name: string, value: TreeValue, call: Call | null): void {
    switch (OID_FIELDS[name]) {
      case 'type':
        if (!oidsIn(value).every((oid) => this.#isPlain(oid, name))) this.#unknown()
        return
      case 'operator':
        for (const oid of oidsIn(value)) {
          const behind = this.#code.functions.get(this.#code.operators.get(oid) ?? '')
          // An operator's function may have a body, too, but few have.
          if (behind?.isPure !== true) this.isConclusive = false
          if (behind?.isImmutable !== true) this.rowAlone = false
          if (behind?.plansHold !== true || behind.body !== null) this.plansHold = false
        }
        return
      case 'relation':
        for (const oid of oidsIn(value)) this.relation(oid)
        return
      case 'function':
        return
      case undefined:
        if (IRRELEVANT.has(name)) return
        if (isNode(value) || (isList(value) && value.some((item) => isNode(item) || isList(item))))
          this.#value(value, call)
        else if (!isEmpty(value)) this.#unknown()
    }
  }

  /** A value that is stored has passed the checks of its domain; where one is made, they run. */
  #isPlain(type: string, field: string): boolean {
    return this.#code.plainTypes.has(type) || (field === 'vartype' && this.#code.plainDomains.has(type))
  }

  #function(node: TreeNode, call: Call | null): void {
    const [oid = ''] = oidsIn(node.fields.get('funcid') ?? node.fields.get('aggfnoid') ?? null)
    const code = this.#code.functions.get(oid)
    const values = argumentsOf(node)
    if (code?.builtIn === READS_SETTINGS) {
      const name = this.#constantText(values[0], call)
      if (name === null) this.isConclusive = false
      else this.settings.add(name.toLowerCase())
      return
    }
    if (code?.plansHold !== true) this.plansHold = false
    if (code?.isPure === true) {
      if (!code.isImmutable) this.rowAlone = false
      return
    }
    const body = this.#bodyOf(code, values, call)
    if (body !== null) this.#value(body.tree, body.call)
    else if (code?.body == null) this.isConclusive = false
    else this.#unknown()
  }

  /** The body to read for a call, where there is one and nothing is left to defaults, which are not in the tree. */
  #bodyOf(
    code: FunctionCode | undefined,
    values: readonly TreeValue[],
    outer: Call | null,
  ): { tree: TreeValue; call: Call } | null {
    if (code?.body == null || code.argumentCount !== values.length) return null
    const depth = (outer?.depth ?? 0) + 1
    if (depth > CALLS_MAX) return null
    return { tree: code.body, call: { values, outer, depth } }
  }

  /** Reads the policies for reading a table. */
  relation(oid: string): void {
    if (this.#relations.has(oid)) return
    // The first is the table itself.
    if (this.#relations.size > 0) this.rowAlone = false
    this.#relations.add(oid)
    const relation = this.#code.relations.get(oid)
    if (relation === undefined) this.#unknown()
    else for (const tree of relation.policies) this.read(tree)
  }

  /** The key, if the node takes one member of the payload by a constant key. */
  #payloadKey(node: TreeNode, call: Call | null): string | null {
    if (node.tag !== 'OPEXPR' || !MEMBER_BY_KEY.has(String(node.fields.get('opno')))) return null
    const [from, key] = argumentsOf(node)
    return this.#isPayload(from, call) ? this.#constantText(key, call) : null
  }

  /** Whether a value is the payload, as text or JSON; or NULL or a constant, for lack of a payload. */
  #isPayload(value: TreeValue | undefined, call: Call | null): boolean {
    if (!isNode(value)) return false
    const [first, ...others] = argumentsOf(value)
    switch (value.tag) {
      case 'FUNCEXPR': {
        const code = this.#code.functions.get(String(value.fields.get('funcid')))
        if (code?.builtIn === READS_SETTINGS)
          return this.#constantText(first, call)?.toLowerCase() === PAYLOAD_SETTING
        // One with arguments may be STRICT, and then NULL for the sake of an argument.
        const body = first === undefined ? this.#bodyOf(code, [], call) : null
        return body !== null && this.#isPayload(onlyExpressionOf(body.tree), body.call)
      }
      case 'COERCEVIAIO':
        return (
          JSON_TYPES.has(String(value.fields.get('resulttype'))) &&
          this.#isPayload(value.fields.get('arg'), call)
        )
      case 'NULLIFEXPR':
        return (
          value.fields.get('opno') === TEXT_EQUALS &&
          this.#isPayload(first, call) &&
          this.#constantText(others[0], call) === ''
        )
      case 'COALESCE':
      case 'COALESCEEXPR':
        return this.#isPayload(first, call) && others.every((other) => isNode(other) && other.tag === 'CONST')
      case 'SUBLINK':
        return (
          value.fields.get('subLinkType') === EXPR_SUBLINK &&
          this.#isPayload(onlyExpressionOf(value.fields.get('subselect')), call)
        )
      default:
        return false
    }
  }

  /** The text that an expression is whatever the row and the claims are. ASCII only, as in every encoding. */
  #constantText(value: TreeValue | undefined, call: Call | null): string | null {
    if (!isNode(value)) return null
    if (value.tag === 'CONST') return textOf(value)
    if (value.tag === 'PARAM' && value.fields.get('paramkind') === PARAM_EXTERN && call !== null)
      return this.#constantText(call.values[Number(value.fields.get('paramid')) - 1], call.outer)
    if (value.tag !== 'OPEXPR' || value.fields.get('opno') !== CONCATENATION) return null
    const parts = argumentsOf(value).map((part) => this.#constantText(part, call))
    return parts.includes(null) ? null : parts.join('')
  }
}

function argumentsOf(node: TreeNode): readonly TreeValue[] {
  const values = node.fields.get('args')
  return isList(values) ? values : []
}

/** The expression of `SELECT expression`, with nothing else to it. A body may be a list of lists of statements. */
function onlyExpressionOf(tree: TreeValue | undefined): TreeValue | undefined {
  if (isList(tree)) return tree.length === 1 ? onlyExpressionOf(tree[0]) : undefined
  if (!isNode(tree) || tree.tag !== 'QUERY') return undefined
  const from = tree.fields.get('jointree')
  const isPlain =
    isNode(from) &&
    isEmpty(from.fields.get('fromlist')) &&
    isEmpty(from.fields.get('quals')) &&
    ['commandType', 'jointree', 'targetList'].every((name) => tree.fields.has(name)) &&
    tree.fields.get('commandType') === CMD_SELECT &&
    [...tree.fields].every(
      ([name, value]) =>
        IRRELEVANT.has(name) || name === 'jointree' || name === 'targetList' || isEmpty(value),
    )
  const targets = tree.fields.get('targetList')
  const [target] = isList(targets) && targets.length === 1 ? targets : []
  return isPlain && isNode(target) ? target.fields.get('expr') : undefined
}

/** What Postgres writes for a field that holds nothing. */
function isEmpty(value: TreeValue | undefined): boolean {
  if (isList(value)) return value.every((item) => item === 'b' || item === 'o' || item === 'i')
  return value === undefined || value === null || ['0', '-1', 'false'].includes(String(value))
}

/** A constant of type text as Postgres keeps it: four bytes for the length, itself included, and the characters. */
function textOf(constant: TreeNode): string | null {
  const value = constant.fields.get('constvalue')
  if (constant.fields.get('consttype') !== TEXT_TYPE || typeof value !== 'object' || value === null)
    return null
  if (!('bytes' in value)) return null
  const [a = 0, b = 0, c = 0, d = 0, ...characters] = value.bytes
  // The length is shifted by two bits in a little-endian machine's word (postgres' varatt.h).
  if ((a | (b << 8) | (c << 16) | (d << 24)) >>> 0 !== value.bytes.length * 4) return null
  return characters.every((byte) => byte > 0 && byte < 128) ? String.fromCharCode(...characters) : null
}
