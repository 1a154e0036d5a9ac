/** Connections to Postgres as the server's pools have them, for tests of what statements on them may count on. */
import postgres, { type Sql } from 'postgres'

/** One, unless `max` says more. Closed with the scope. `options` are of postgres.js, those that its types leave out too. */
export function openConnections(
  url: string,
  options: Readonly<Record<string, unknown>> = {},
): Sql & AsyncDisposable {
  const sql: Sql = postgres(url, { max: 1, fetch_types: false, ...options })
  return Object.assign(sql, { [Symbol.asyncDispose]: () => sql.end({ timeout: 1 }) })
}
