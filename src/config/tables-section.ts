/** Which tables are served: `table:` or `tables:` of datum.yaml, with TABLE from the environment over them. */
import type { TableConfig } from './config.ts'
import type { Problem } from './problem.ts'
import { fileSchema, type TableSection } from './schema.ts'
import type { TableName } from './table-name.ts'
import type { YamlFile } from './yaml-file.ts'

/** What is served if nothing is said. */
const DEFAULT_TABLE: TableName = { schema: 'public', name: 'features' }
const DEFAULT_ID_COLUMN = 'id'

interface TablesOutcome {
  /** Never empty. */
  readonly tables: readonly TableConfig[]
  readonly problems: readonly Problem[]
}

/**
 * Reads the tables. `override` is TABLE: it takes the place of the name in `table:`, whose columns stay; of `tables:`
 * it chooses one, or names another that is not listed.
 */
export function readTables(file: YamlFile | null, override: TableName | null): TablesOutcome {
  const problems: Problem[] = []
  if (file?.content.table !== undefined && file.content.tables !== undefined) {
    problems.push({
      where: file.where(['table']),
      message: '"table" and "tables" are both here; list every table under "tables".',
    })
  }
  const single = fileSchema.shape.table.safeParse(file?.content.table).data
  const listed = fileSchema.shape.tables.safeParse(file?.content.tables).data ?? []
  for (const index of repeated(listed)) {
    problems.push({
      where: file!.where(['tables', index]),
      message: 'this table is listed twice; leave one.',
    })
  }
  const sections = single === undefined ? listed : [single]
  if (override !== null) {
    const entry = single ?? listed.find(({ name }) => isSame(name, override))
    return { tables: [tableConfig({ ...entry, name: override })], problems }
  }
  return {
    tables: (sections.length === 0 ? [{ name: DEFAULT_TABLE }] : sections).map(tableConfig),
    problems,
  }
}

function tableConfig({ name, col_id, col_geom }: TableSection): TableConfig {
  return { ...name, idColumn: col_id ?? DEFAULT_ID_COLUMN, geometryColumn: col_geom ?? null }
}

/** The indices of entries that name a table which an earlier one names. */
function repeated(sections: readonly TableSection[]): readonly number[] {
  return [...sections.keys()].filter(
    (index) => sections.findIndex(({ name }) => isSame(name, sections[index]!.name)) < index,
  )
}

const isSame = (a: TableName, b: TableName) => a.schema === b.schema && a.name === b.name
