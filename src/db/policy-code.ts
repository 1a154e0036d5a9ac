/**
 * Loads all code that a table's policies can reach, as parse trees: the policies themselves, the bodies of SQL functions
 * that they call, the policies of tables that they look into; and says which functions and types are known to depend on
 * nothing else. `policies.ts` draws the conclusion.
 */
import type { Sql } from 'postgres'
import { isList, isNode, parseNodeTree, type TreeValue } from './node-tree.ts'

export interface PolicyCode {
  /** Policies of the table that do not decide what is read: WITH CHECK, and those for writes. */
  readonly writing: readonly Tree[]
  readonly functions: ReadonlyMap<string, FunctionCode>
  /** From operators to the functions behind them. */
  readonly operators: ReadonlyMap<string, string>
  /** Types whose values are read, written, compared and converted by code of Postgres or of a known extension. */
  readonly plainTypes: ReadonlySet<string>
  /** Domains of such types. */
  readonly plainDomains: ReadonlySet<string>
  /** The table itself, and those that are looked into; no views and no foreign tables, whose rows other code makes. */
  readonly relations: ReadonlyMap<string, RelationCode>
}

/** `undefined`: the text was not understood. */
export type Tree = TreeValue | undefined

export interface FunctionCode {
  /** The answer depends on the arguments, the clock and settings of the server's role only. */
  readonly isPure: boolean
  readonly isImmutable: boolean
  /** Planning neither evaluates it nor puts its body, which may hold calls that it evaluates, in the place of the call. */
  readonly plansHold: boolean
  /** Of a function in SQL whose body was parsed when it was made (`RETURN …`, `BEGIN ATOMIC`). Null: there is none. */
  readonly body: Tree | null
  readonly argumentCount: number
  /** `pg_proc.proname`, if it is in pg_catalog. */
  readonly builtIn: string | null
}

interface RelationCode {
  /** USING of the policies FOR SELECT and FOR ALL, if row security is on, whichever role they are for. */
  readonly policies: readonly Tree[]
}

/** What an oid in a field of that name stands for, on every node that has one. */
export const OID_FIELDS: Readonly<Record<string, 'function' | 'operator' | 'type' | 'relation'>> = {
  funcid: 'function',
  aggfnoid: 'function',
  opno: 'operator',
  opnos: 'operator',
  eqop: 'operator',
  sortop: 'operator',
  relid: 'relation',
  vartype: 'type',
  consttype: 'type',
  paramtype: 'type',
  opresulttype: 'type',
  funcresulttype: 'type',
  resulttype: 'type',
  casetype: 'type',
  typeId: 'type',
  type: 'type',
  coalescetype: 'type',
  minmaxtype: 'type',
  array_typeid: 'type',
  element_typeid: 'type',
  row_typeid: 'type',
  refcontainertype: 'type',
  refelemtype: 'type',
  refrestype: 'type',
  aggtype: 'type',
  aggargtypes: 'type',
  funccoltypes: 'type',
  coltypes: 'type',
  colTypes: 'type',
  ctecoltypes: 'type',
}

/** The oids in a field: one, or a list that begins with `o`. `0` is none. */
export function oidsIn(value: TreeValue): string[] {
  const texts = isList(value) ? value : [value]
  return texts.filter((text): text is string => typeof text === 'string' && /^[1-9]\d*$/.test(text))
}

/** More functions, tables and types than this are not followed, and then the reading is not conclusive. */
const REACH_MAX = 5_000

/**
 * Extensions whose immutable functions in C depend on their arguments only. PostGIS's that query a table as the caller
 * (ST_FindExtent, ST_EstimatedExtent) are not immutable.
 */
const EXTENSIONS = ['postgis', 'citext', 'hstore', 'ltree', 'pgcrypto']

/**
 * Built-in functions that are not immutable only for the sake of the clock, or of how values look as text. Those that
 * have times for all of their arguments need not be named.
 */
const STABLE_BUT_PURE = [
  'now',
  'transaction_timestamp',
  'statement_timestamp',
  'clock_timestamp',
  'date_trunc',
  'date_part',
  'date_bin',
  'extract',
  'timezone',
  'to_char',
  'to_date',
  'to_timestamp',
  'to_number',
  'concat',
  'concat_ws',
  'textanycat',
  'anytextcat',
  'array_to_string',
  'to_json',
  'to_jsonb',
  'jsonb_build_object',
  'jsonb_build_array',
  'json_build_object',
  'json_build_array',
  'jsonb_agg',
  'json_agg',
]

/** Reads the catalogs, in as many rounds as the code is deep. */
export async function loadPolicyCode(sql: Sql, tableOid: number): Promise<PolicyCode> {
  const [writing, own] = await Promise.all([
    loadWritingPolicies(sql, tableOid),
    loadRelations(sql, [String(tableOid)]),
  ])
  const functions = new Map<string, FunctionCode>()
  const operators = new Map<string, string>()
  const plainTypes = new Set<string>()
  const plainDomains = new Set<string>()
  const relations = new Map(own)
  const seen = new Set([`relation ${tableOid}`])
  let trees: readonly Tree[] = [...own.flatMap(([, { policies }]) => policies), ...writing]
  while (trees.length > 0 && seen.size < REACH_MAX) {
    const wanted: Wanted = { function: [], operator: [], type: [], relation: [] }
    for (const tree of trees) collectOids(tree, seen, wanted)
    // At once, since what takes time is the way to Postgres.
    const [foundOperators, foundFunctions, types, foundRelations] = await Promise.all([
      loadOperators(sql, wanted.operator),
      loadFunctions(sql, wanted.function, wanted.operator),
      loadPlainTypes(sql, wanted.type),
      loadRelations(sql, wanted.relation),
    ])
    for (const [oid, code] of foundOperators) operators.set(oid, code)
    for (const { oid, domain } of types) (domain ? plainDomains : plainTypes).add(oid)
    const found: Tree[] = []
    for (const [oid, code] of foundFunctions) {
      functions.set(oid, code)
      if (code.body !== null) found.push(code.body)
    }
    for (const [oid, relation] of foundRelations) {
      relations.set(oid, relation)
      found.push(...relation.policies)
    }
    trees = found
  }
  return { writing, functions, operators, plainTypes, plainDomains, relations }
}

type Wanted = Record<(typeof OID_FIELDS)[string], string[]>

async function loadWritingPolicies(sql: Sql, tableOid: number): Promise<readonly Tree[]> {
  const rows = await sql<{ tree: string }[]>`
    select p.polwithcheck::text as tree from pg_policy p
     where p.polrelid = ${tableOid} and p.polwithcheck is not null
    union all
    select p.polqual::text from pg_policy p
     where p.polrelid = ${tableOid} and p.polqual is not null and p.polcmd not in ('r', '*')`
  return rows.map(({ tree }) => parseNodeTree(tree))
}

function collectOids(value: Tree, seen: Set<string>, wanted: Wanted): void {
  if (isList(value)) for (const item of value) collectOids(item, seen, wanted)
  if (!isNode(value)) return
  for (const [name, field] of value.fields) {
    const kind = OID_FIELDS[name]
    if (kind === undefined) {
      collectOids(field, seen, wanted)
      continue
    }
    for (const oid of oidsIn(field)) {
      if (seen.has(`${kind} ${oid}`)) continue
      seen.add(`${kind} ${oid}`)
      wanted[kind].push(oid)
    }
  }
}

async function loadOperators(sql: Sql, oids: readonly string[]): Promise<[string, string][]> {
  if (oids.length === 0) return []
  const rows = await sql<{ oid: string; code: string }[]>`
    select o.oid::text as oid, o.oprcode::oid::text as code from pg_operator o
     where o.oid = any (string_to_array(${oids.join(',')}, ',')::oid[])`
  return rows.map(({ oid, code }) => [oid, code])
}

/** Functions by oid, and those behind operators. */
async function loadFunctions(
  sql: Sql,
  oids: readonly string[],
  operators: readonly string[],
): Promise<[string, FunctionCode][]> {
  if (oids.length + operators.length === 0) return []
  // Oids below 16384 are given to what initdb made (Postgres §System Catalog Declarations), and what is `internal` is
  // compiled in. Only a superuser can change that, and who does is not protected from.
  const rows = await sql<
    {
      oid: string
      pure: boolean
      immutable: boolean
      plans_hold: boolean
      body: string | null
      arguments: number
      built_in: string | null
    }[]
  >`
    select p.oid::text as oid, p.pronargs::int as arguments, p.provolatile = 'i' as immutable,
           case when b.built_in then p.proname end as built_in,
           s.body,
           p.prokind in ('f', 'a') and case
             when b.built_in then l.lanname = 'internal' and (
               p.provolatile = 'i' or p.proname = any (string_to_array(${STABLE_BUT_PURE.join(',')}, ','))
               or p.provolatile = 's' and p.pronargs > 0
                  and not exists (select from unnest(p.proargtypes::oid[]) a
                                   where a not in ('date'::regtype, 'time'::regtype, 'timetz'::regtype, 'timestamp'::regtype,
                                                   'timestamptz'::regtype, 'interval'::regtype)))
             else l.lanname = 'c' and p.provolatile = 'i' and exists (
               select from pg_depend d join pg_extension x on x.oid = d.refobjid
                where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
                  and d.refclassid = 'pg_extension'::regclass
                  and x.extname = any (string_to_array(${EXTENSIONS.join(',')}, ',')))
           end as pure,
           -- What has a SET clause is never put in the place of its call.
           b.built_in or p.provolatile <> 'i' and (l.lanname <> 'sql' or s.body is not null or p.proconfig is not null) as plans_hold
      from pg_proc p join pg_language l on l.oid = p.prolang,
           lateral (select p.oid < 16384 and p.pronamespace = 'pg_catalog'::regnamespace as built_in) b,
           -- SET clauses could give a setting for the time of the call; search_path alone is harmless, since the names in
           -- a parsed body are resolved.
           lateral (select case when l.lanname = 'sql' and p.prokind = 'f' and p.provariadic = 0
                                     and not exists (select from unnest(p.proconfig) c where c not like 'search_path=%')
                                then p.prosqlbody::text end as body) s
     where p.oid = any (string_to_array(${oids.join(',')}, ',')::oid[])
        or p.oid in (select o.oprcode from pg_operator o
                      where o.oid = any (string_to_array(${operators.join(',')}, ',')::oid[]))`
  return rows.map((row) => [
    row.oid,
    {
      isPure: row.pure,
      isImmutable: row.immutable,
      plansHold: row.pure || row.plans_hold,
      body: row.body === null ? null : parseNodeTree(row.body),
      argumentCount: row.arguments,
      builtIn: row.built_in,
    },
  ])
}

async function loadPlainTypes(
  sql: Sql,
  oids: readonly string[],
): Promise<readonly { oid: string; domain: boolean }[]> {
  if (oids.length === 0) return []
  // An enum is Postgres' own code too, unless somebody made an operator class or a cast for it.
  return sql<{ oid: string; domain: boolean }[]>`
    with recursive below (wanted, oid, domain) as (
      select t.oid, t.oid, false from pg_type t where t.oid = any (string_to_array(${oids.join(',')}, ',')::oid[])
      union
      select b.wanted, case when t.typtype = 'd' then t.typbasetype else t.typelem end, t.typtype = 'd'
        from below b join pg_type t on t.oid = b.oid
       where t.typtype = 'd' or t.oid >= 16384 and t.typcategory = 'A' and t.typelem <> 0
    )
    select b.wanted::text as oid, bool_or(b.domain) as domain
      from below b join pg_type t on t.oid = b.oid
     group by b.wanted
    having bool_and(
      t.typtype = 'd' or t.oid >= 16384 and t.typcategory = 'A' and t.typelem <> 0
      or t.oid < 16384 and t.typnamespace = 'pg_catalog'::regnamespace and t.typtype <> 'c'
      or t.typtype = 'e' and not exists (select from pg_opclass c where c.opcintype = t.oid)
                         and not exists (select from pg_cast c where c.castsource = t.oid)
      or exists (select from pg_depend d join pg_extension x on x.oid = d.refobjid
                  where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
                    and d.refclassid = 'pg_extension'::regclass
                    and x.extname = any (string_to_array(${EXTENSIONS.join(',')}, ','))))`
}

async function loadRelations(sql: Sql, oids: readonly string[]): Promise<[string, RelationCode][]> {
  if (oids.length === 0) return []
  const rows = await sql<{ oid: string; policies: string[] }[]>`
    select c.oid::text as oid,
           (select coalesce(json_agg(p.polqual::text), '[]') from pg_policy p
             where c.relrowsecurity and p.polrelid = c.oid and p.polcmd in ('r', '*') and p.polqual is not null) as policies
      from pg_class c
     where c.oid = any (string_to_array(${oids.join(',')}, ',')::oid[]) and c.relkind in ('r', 'p')
       and not exists (
         with recursive child (oid) as (
           select i.inhrelid from pg_inherits i where i.inhparent = c.oid
           union select i.inhrelid from child join pg_inherits i on i.inhparent = child.oid)
         select from child join pg_class k on k.oid = child.oid where k.relkind not in ('r', 'p'))`
  return rows.map(({ oid, policies }) => [oid, { policies: policies.map((tree) => parseNodeTree(tree)) }])
}
