/**
 * The query that reads a table's rows by id, and the function that reads with it for many classes of principals in one
 * statement. `setup` makes the function, so that Postgres keeps its plans: a class costs a sixteenth of what it costs
 * in `datum.read_as` (sql/schema.sql), which does the same for any query. `as-principal.ts` calls them.
 */
import { createHash } from 'node:crypto'
import { type Column, rowJsonSql } from './columns.ts'
import { dollarQuoted, quoteIdentifier } from './identifier.ts'

/** What of a table the query depends on. */
export interface ReadableTable {
  readonly qualified: string
  readonly postgis: string
  readonly columns: readonly Column[]
  readonly id: { readonly column: string; readonly sqlType: string }
  readonly geometry: { readonly wireSql: string } | null
}

/**
 * Rows by id: columns id, min_x, min_y, max_x, max_y, row_json. `ids` is SQL for an array of the id column's type.
 * Equality on these types is leakproof, so under row security the key's index serves.
 */
export function rowsByIdSql(table: ReadableTable, ids = `$1::${table.id.sqlType}[]`): string {
  const { id, qualified, geometry, postgis } = table
  const column = `t.${quoteIdentifier(id.column)}`
  const json = rowJsonSql(table.columns, postgis)
  const edges =
    geometry === null
      ? 'null::float8, null::float8, null::float8, null::float8'
      : ['st_xmin', 'st_ymin', 'st_xmax', 'st_ymax'].map((edge) => `${postgis}.${edge}(w.g)`).join(', ')
  const place = geometry === null ? '' : `, lateral (select ${geometry.wireSql} as g offset 0) w`
  return `select ${column}::text, ${edges}, ${json} from ${qualified} t${place} where ${column} = any (${ids})`
}

/** A digest of the query. Where it is the one that was noted at `setup`, the function reads what the query would. */
export function readDigest(table: ReadableTable): string {
  return createHash('sha256').update(rowsByIdSql(table)).digest('hex').slice(0, 32)
}

/** `datum.read_…(names, settings, ids, first, last, length_max, apart, rel)`: see `datum.read_as`. */
export function readFunctionName({ qualified }: Pick<ReadableTable, 'qualified'>): string {
  const suffix = createHash('sha256').update(qualified).digest('hex').slice(0, 12)
  return `datum.${quoteIdentifier(`read_${suffix}`)}`
}

export const READ_FUNCTION_ARGUMENTS = '(text[], text[], text[], integer[], integer[], bigint, boolean, oid)'

/**
 * The function, as the invoker, so that row security applies. One row is read without the window that adds up lengths,
 * which costs more than the row. The variables are qualified by their block, since columns may have any name. The array
 * is looked up by a sub-select, so that the planner does not see how long it is: it would believe that a plan for just
 * those few ids is cheaper than the one it keeps, and plan anew for each class, which takes seven times as long. The
 * `offset 0` has each row's JSON made once, and not again for its length.
 */
export function readFunctionSql(table: ReadableTable): string {
  const name = readFunctionName(table)
  const own = name.split('.')[1]
  const rows = (ids: string) =>
    `(${rowsByIdSql(table, ids)} offset 0) q(id, min_x, min_y, max_x, max_y, row_json)`
  return `create or replace function ${name}(
    names text[], settings text[], ids text[], first integer[], last integer[], length_max bigint, apart boolean, rel oid)
  returns table (class integer, id text, min_x float8, min_y float8, max_x float8, max_y float8, row_json text, error text)
  language plpgsql volatile security invoker as ${dollarQuoted(`
#variable_conflict use_column
<<reading>>
declare
  typed_ids ${table.id.sqlType}[] := ids;
  wanted ${table.id.sqlType}[];
  is_alone boolean := cardinality(first) = 1;
  ignored text;
  is_read boolean;
begin
  <<classes>>
  for n in 1 .. cardinality(first) loop
    is_read := false;
    begin
      for i in 1 .. cardinality(names) loop
        ignored := set_config(names[i], settings[(n - 1) * cardinality(names) + i], true);
      end loop;
      -- Neighbours mostly want the same.
      if n = 1 or first[n] <> first[n - 1] or last[n] <> last[n - 1] then
        wanted := typed_ids[first[n]:last[n]];
      end if;
      if first[n] = last[n] then
        return query select classes.n, q.id, q.min_x, q.min_y, q.max_x, q.max_y,
               case when reading.is_alone or length(q.row_json) <= ${own}.length_max then q.row_json end, null::text
          from ${rows('array[reading.wanted[1]]')};
      else
        return query select classes.n, q.id, q.min_x, q.min_y, q.max_x, q.max_y,
               case when reading.is_alone and row_number() over () = 1
                         or sum(length(q.row_json)) over (rows unbounded preceding) <= ${own}.length_max
                    then q.row_json end,
               null::text
          from ${rows(`(select reading.wanted)::${table.id.sqlType}[]`)};
      end if;
      if apart then
        is_read := true;
        raise exception 'undone';
      end if;
    exception when others then
      if not is_read then
        class := n; id := null; row_json := null; error := sqlstate;
        return next;
      end if;
    end;
  end loop;
  for i in 1 .. cardinality(names) loop
    ignored := set_config(names[i], '', true);
  end loop;
  class := 0; id := datum.fingerprint(rel); row_json := null; error := null;
  return next;
end `)}`
}
