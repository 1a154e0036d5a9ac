/** Quoting of names and text for SQL that has to be put together, after the rules of Postgres §4.1. */

/** `name` as an SQL identifier. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

/** `text` as an SQL string constant that means the same whatever `standard_conforming_strings` is. */
export function quoteLiteral(text: string): string {
  const quoted = `'${text.replaceAll("'", "''")}'`
  return text.includes('\\') ? ` E${quoted.replaceAll('\\', '\\\\')}` : quoted
}

/** `body` as a dollar-quoted string, which no part of it can end: identifiers in it may have any characters. */
export function dollarQuoted(body: string): string {
  let tag = '$datum$'
  for (let n = 1; body.includes(tag); n++) tag = `$datum${n}$`
  return `${tag}${body}${tag}`
}
