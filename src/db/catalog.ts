/**
 * What Postgres knows of a served table, as one immutable value with the SQL that follows from it. Read at the start
 * and again whenever the table's fingerprint shows that somebody changed its columns or policies.
 */
import type { Sql } from 'postgres'
import type { TableConfig } from '../config/config.ts'
import { OperatorError } from '../operator-error.ts'
import type { TableInfo } from '../wire/messages.ts'
import { type Column, isSpatial, wgs84Sql } from './columns.ts'
import { quoteIdentifier } from './identifier.ts'
import { NO_CLAIMS, type PolicyReads, readPolicies } from './policies.ts'
import { READ_FUNCTION_ARGUMENTS, readDigest, readFunctionName } from './read-function.ts'

/** The id column's SQL type, which is what ids from clients are cast to. All have leakproof equality. */
type IdSqlType = 'uuid' | 'text' | 'int2' | 'int4' | 'int8'

export interface Table {
  readonly config: TableConfig
  readonly oid: number
  /** As clients name it: `features`, or `schema.features` outside of `public`. */
  readonly wireName: string
  /** Quoted, with its schema: ready to be part of a statement. */
  readonly qualified: string
  /** The role that owns it. */
  readonly owner: string
  /** Whether it has partitions or children: then a row's physical address says too little. */
  readonly hasChildren: boolean
  /** Its partitions, quoted, with their schemas: those can be written to directly. */
  readonly partitions: readonly string[]
  /** The columns that the server's role may read, in the table's order. */
  readonly columns: readonly Column[]
  readonly id: { readonly column: string; readonly sqlType: IdSqlType }
  /** `wireSql`: the geometry of row `t` in WGS 84. Null for a table without geometry. */
  readonly geometry: { readonly column: Column; readonly wireSql: string } | null
  /** Whether row security applies to the server's role. */
  readonly rowSecurity: boolean
  /** Whether `datum.candidates` sees past row security here, and so may stand in for the spatial index. */
  readonly candidatesBypass: boolean
  /**
   * `datum.read_…`, if it reads what {@link rowsByIdSql} says and its plans are right for everybody; null where the table
   * was altered since `setup`, or the policies forbid it.
   */
  readonly readFunction: string | null
  readonly policyReads: PolicyReads
  readonly fingerprint: string
  /** Identifies the change triggers as they are; others than before may have missed something. */
  readonly triggers: string
  /** PostGIS's schema, quoted. */
  readonly postgis: string
  readonly info: TableInfo
}

const ID_TYPES: Readonly<Record<string, IdSqlType>> = {
  uuid: 'uuid',
  text: 'text',
  varchar: 'text',
  int2: 'int2',
  int4: 'int4',
  int8: 'int8',
}

interface RelationRow {
  oid: number
  relkind: string
  owner: string
  schema_usable: boolean
  has_children: boolean
  partitions: string[]
  row_security: boolean
  fingerprint: string
  /** Null where it cannot be told, and so false. */
  bypass: boolean | null
  watched_geometry: string | null
  read_digest: string | null
  triggers: string | null
  postgis: string | null
}

interface ColumnRow {
  name: string
  type: string
  base_type: string
  kind: string
  srid: number
  not_null: boolean
  has_default: boolean
  readable: boolean
  has_own_cast: boolean
  single_unique: boolean
}

/** The server's role may not read the table. */
export class TableForbidden extends OperatorError {}

/** Reads one table. Rejects with an {@link OperatorError} that says what about it cannot be served. */
export async function readTable(sql: Sql, config: TableConfig): Promise<Table> {
  const qualified = `${quoteIdentifier(config.schema)}.${quoteIdentifier(config.name)}`
  const wireName = config.schema === 'public' ? config.name : `${config.schema}.${config.name}`
  const relation = await readRelation(sql, config, qualified)
  if (relation === undefined) {
    throw new OperatorError(
      `There is no table ${wireName} that this role may see. Create it, or name yours under \`table:\` in datum.yaml.`,
    )
  }
  if (relation.relkind !== 'r' && relation.relkind !== 'p') {
    throw new OperatorError(
      `${wireName} is not a table. Views have no triggers on the rows below them: serve the tables themselves.`,
    )
  }
  if (!relation.schema_usable) {
    const schema = quoteIdentifier(config.schema)
    throw new TableForbidden(
      `The server's role may not use the schema of ${wireName}. Run: GRANT USAGE ON SCHEMA ${schema} TO <role>`,
    )
  }
  if (relation.postgis === null) {
    throw new OperatorError('This database has no PostGIS. Run `CREATE EXTENSION postgis` as a superuser.')
  }
  const postgis = quoteIdentifier(relation.postgis)
  const columnRows = await readColumns(sql, relation.oid)
  const columns = columnRows.filter((column) => column.readable).map(columnOf)
  const id = idOf(config, wireName, columnRows)
  const geometryColumn = geometryOf(config, wireName, columns)
  const geometry =
    geometryColumn === null
      ? null
      : {
          column: geometryColumn,
          wireSql: wgs84Sql(geometryColumn, `t.${quoteIdentifier(geometryColumn.name)}`, postgis),
        }
  const readable = { qualified, postgis, columns, id, geometry }
  const isAsRead = relation.read_digest === readDigest(readable)
  const policyReads = await policyReadsOf(sql, relation, columnRows)
  return {
    ...readable,
    config,
    oid: relation.oid,
    wireName,
    owner: relation.owner,
    hasChildren: relation.has_children,
    partitions: relation.partitions,
    rowSecurity: relation.row_security,
    candidatesBypass:
      relation.bypass === true &&
      geometryColumn !== null &&
      relation.watched_geometry === geometryColumn.name,
    triggers: relation.triggers ?? '',
    policyReads,
    readFunction: isAsRead && policyReads.plansHold ? readFunctionName(readable) : null,
    fingerprint: relation.fingerprint,
    info: {
      name: wireName,
      idColumn: id.column,
      idType: id.sqlType === 'uuid' || id.sqlType === 'text' ? id.sqlType : 'integer',
      geometryColumn: geometryColumn?.name ?? null,
      columns: columns.map(({ name, type, notNull, hasDefault }) => ({
        name,
        type,
        nullable: !notNull,
        hasDefault,
      })),
    },
  }
}

async function readRelation(
  sql: Sql,
  { schema, name }: TableConfig,
  qualified: string,
): Promise<RelationRow | undefined> {
  const readFunction = `${readFunctionName({ qualified })}${READ_FUNCTION_ARGUMENTS}`
  const rows = await sql<RelationRow[]>`
    select c.oid, c.relkind::text as relkind, pg_get_userbyid(c.relowner) as owner,
           has_schema_privilege(c.relnamespace, 'usage') as schema_usable,
           exists (select from pg_inherits i where i.inhparent = c.oid) as has_children,
           (select coalesce(json_agg(format('%I.%I', pn.nspname, pc.relname) order by pc.oid), '[]')
              from pg_partition_tree(c.oid) tree join pg_class pc on pc.oid = tree.relid
              join pg_namespace pn on pn.oid = pc.relnamespace where tree.level > 0) as partitions,
           row_security_active(c.oid) as row_security,
           datum.fingerprint(c.oid) as fingerprint,
           (select (o.rolsuper or o.rolbypassrls or (not c.relforcerowsecurity and pg_has_role(o.oid, c.relowner, 'usage')))
                   -- A column that was made since \`setup\`, say, is not the role's to read.
                   and has_schema_privilege(o.oid, c.relnamespace, 'usage')
                   and has_column_privilege(o.oid, c.oid, 'ctid', 'select')
                   and (select has_column_privilege(o.oid, c.oid, a.attnum, 'select')
                          from datum.watched w join pg_attribute a on a.attrelid = w.rel and a.attname = w.geometry_column
                         where w.rel = c.oid and not a.attisdropped)
              from pg_proc p join pg_roles o on o.oid = p.proowner
             where p.proname = 'candidates' and p.pronamespace = to_regnamespace('datum'))
             -- Rows are read by ctid then, for which Postgres wants the right to the whole table.
             and has_table_privilege(c.oid, 'select') as bypass,
           -- As datum.candidates looks it up.
           (select w.geometry_column from datum.watched w
              join pg_attribute a on a.attrelid = w.rel and a.attname = w.geometry_column and not a.attisdropped
              join pg_type t on t.oid = a.atttypid
              join pg_type g on g.oid in (t.oid, t.typbasetype) and g.typname = 'geometry'
              join pg_extension e on e.extname = 'postgis' and e.extnamespace = g.typnamespace
             where w.rel = c.oid) as watched_geometry,
           (select w.read_digest from datum.watched w where w.rel = c.oid
               and has_function_privilege(to_regprocedure(${readFunction}), 'execute')) as read_digest,
           (select string_agg(t.oid::text || '/' || t.xmin::text, ',' order by t.oid) from pg_trigger t
             where t.tgrelid = c.oid and starts_with(t.tgname, 'zz_datum_')) as triggers,
           (select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
             where e.extname = 'postgis') as postgis
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = ${schema} and c.relname = ${name}`
  return rows[0]
}

function readColumns(sql: Sql, oid: number): Promise<ColumnRow[]> {
  // A domain is served as the type it is made of; `typbasetype` is followed to its end by the recursive part.
  return sql<ColumnRow[]>`
    with recursive base (attnum, oid, typmod) as (
      select a.attnum, a.atttypid, a.atttypmod from pg_attribute a
       where a.attrelid = ${oid} and a.attnum > 0 and not a.attisdropped
      union all
      select b.attnum, t.typbasetype, t.typtypmod from base b join pg_type t on t.oid = b.oid where t.typtype = 'd'
    ),
    -- Types that a column's value is made of, as far as conversions to text and JSON look for casts of their own.
    part (attnum, oid) as (
      select a.attnum, a.atttypid from pg_attribute a
       where a.attrelid = ${oid} and a.attnum > 0 and not a.attisdropped
      union
      select p.attnum, below.oid from part p join pg_type t on t.oid = p.oid, lateral (
        select t.typbasetype where t.typtype = 'd'
        union all select t.typelem where t.typelem <> 0
        union all select f.atttypid from pg_attribute f where t.typtype = 'c' and f.attrelid = t.typrelid and f.attnum > 0 and not f.attisdropped
        union all select r.rngsubtype from pg_range r where r.rngtypid = t.oid or r.rngmultitypid = t.oid) below (oid)
    ),
    -- Made by somebody, not by Postgres (whose oids are below 16384) and not part of an extension.
    own_cast (attnum) as (
      select p.attnum from part p join pg_cast own on own.castsource = p.oid and own.castfunc >= 16384
       where not exists (select from pg_depend e where e.classid = 'pg_cast'::regclass
                          and e.objid = own.oid and e.deptype = 'e')
    )
    select a.attname as name, format_type(a.atttypid, a.atttypmod) as type,
           t.typname as base_type, t.typtype::text as kind,
           case when t.typname in ('geometry', 'geography') and b.typmod > 0
                then ((b.typmod & 268435200) - (b.typmod & 268435456)) >> 8 else 0 end as srid,
           a.attnotnull as not_null,
           a.atthasdef or a.attidentity <> '' as has_default,
           has_column_privilege(a.attrelid, a.attnum, 'select') as readable,
           exists (select from own_cast o where o.attnum = a.attnum) as has_own_cast,
           exists (select from pg_index i
                    where i.indrelid = a.attrelid and i.indisunique and i.indisvalid and i.indpred is null
                      and i.indnkeyatts = 1 and i.indkey[0] = a.attnum) as single_unique
      from base b
      join pg_type t on t.oid = b.oid and t.typtype <> 'd'
      join pg_attribute a on a.attrelid = ${oid} and a.attnum = b.attnum
     order by a.attnum`
}

/**
 * What a row looks like may depend on claims, too, with row security or without it: where a type has a cast of the
 * application's to make text of it.
 */
async function policyReadsOf(
  sql: Sql,
  { oid, row_security }: RelationRow,
  columns: readonly ColumnRow[],
): Promise<PolicyReads> {
  const reads = await readPolicies(sql, oid)
  if (columns.some((column) => column.has_own_cast))
    return { ...reads, reading: null, plansHold: false, rowAlone: false }
  return row_security ? reads : { ...reads, reading: NO_CLAIMS, plansHold: true, rowAlone: true }
}

function columnOf(row: ColumnRow): Column {
  return {
    name: row.name,
    type: row.type,
    baseType: row.base_type,
    srid: row.srid,
    kind: row.kind,
    notNull: row.not_null,
    hasDefault: row.has_default,
  }
}

function idOf(config: TableConfig, wireName: string, columns: readonly ColumnRow[]): Table['id'] {
  const column = columns.find(({ name }) => name === config.idColumn)
  if (column === undefined) {
    throw new OperatorError(
      `${wireName} has no column ${config.idColumn}. Name its key with \`col_id\` in datum.yaml.`,
    )
  }
  const sqlType = ID_TYPES[column.base_type]
  if (sqlType === undefined) {
    throw new OperatorError(
      `${wireName}.${column.name} is ${column.type}. An id must be uuid, text, varchar or an integer.`,
    )
  }
  if (!column.readable) {
    throw new TableForbidden(
      `The server's role may not read ${wireName}.${column.name}. Run: GRANT SELECT ON ${wireName} TO <role>`,
    )
  }
  if (!column.single_unique || !column.not_null) {
    throw new OperatorError(
      `${wireName}.${column.name} must be the primary key, or NOT NULL with a unique index of its own.`,
    )
  }
  return { column: column.name, sqlType }
}

function geometryOf(config: TableConfig, wireName: string, columns: readonly Column[]): Column | null {
  const spatial = columns.filter(isSpatial)
  if (config.geometryColumn !== null) {
    const column = spatial.find(({ name }) => name === config.geometryColumn)
    if (column === undefined) {
      throw new OperatorError(
        `${wireName} has no readable geometry or geography column ${config.geometryColumn}. Check \`col_geom\` in datum.yaml.`,
      )
    }
    return column
  }
  if (spatial.length > 1) {
    throw new OperatorError(
      `${wireName} has several geometry columns (${spatial.map(({ name }) => name).join(', ')}). Choose one with \`col_geom\` in datum.yaml.`,
    )
  }
  return spatial[0] ?? null
}
