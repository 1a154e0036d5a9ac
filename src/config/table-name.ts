/** `name` or `schema.name`, as people write the name of a table in the configuration. */

export interface TableName {
  readonly schema: string
  readonly name: string
}

/** Longest identifier that Postgres keeps, in bytes (NAMEDATALEN − 1). It cuts longer ones without a word. */
const IDENTIFIER_BYTES_MAX = 63

/** A part as it is, or in double quotes with "" for a quote, for names that hold a dot. */
const PART = /(?:"((?:[^"]|"")+)"|([^".]+))/.source
const TABLE_NAME = new RegExp(`^(?:${PART}\\.)?${PART}$`)

/** Reads a table's name; the schema is `public` unless it says otherwise. Letters keep their case. Null: not a name. */
export function parseTableName(text: string): TableName | null {
  const match = TABLE_NAME.exec(text)
  if (match === null) return null
  const [, quotedSchema, plainSchema, quotedName, plainName] = match
  const schema = quotedSchema?.replaceAll('""', '"') ?? plainSchema ?? 'public'
  const name = quotedName?.replaceAll('""', '"') ?? plainName ?? ''
  return isIdentifier(schema) && isIdentifier(name) ? { schema, name } : null
}

/** True if Postgres can have it as the name of something. */
export function isIdentifier(text: string): boolean {
  return text.trim() !== '' && !text.includes('\0') && Buffer.byteLength(text) <= IDENTIFIER_BYTES_MAX
}
