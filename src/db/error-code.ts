/** What can be told from the code of a database error, which is all of it that is ever looked at or said. */

/** What may be said of a database error: its code, never its text, which can hold values of rows. */
export function errorCode(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' ? code : error instanceof Error ? error.name : 'unknown error'
}

/** SQLSTATE query_canceled: a time limit ran out, or somebody cancelled the statement. */
export const QUERY_CANCELLED = '57014'

/** Every SQLSTATE has a digit, which tells it from the five letters of EPIPE. */
const SQLSTATE = /^(?=.*\d)[0-9A-Z]{5}$/

export function isSqlState(code: string): boolean {
  return SQLSTATE.test(code)
}

/** What postgres.js says of a statement that it cannot send: the same would come of it again. */
const STATEMENT_FAULTS = new Set([
  'UNDEFINED_VALUE',
  'MAX_PARAMETERS_EXCEEDED',
  'NOT_TAGGED_CALL',
  'UNSAFE_TRANSACTION',
  'COPY_IN_PROGRESS',
])

/**
 * Whether the database could not be asked, so that nothing was decided. SQLSTATE classes 08 (connection), 28 and 3D (it
 * was refused), 53 (out of resources), 57 (operator intervention), 25 (a session that was failed over), 58 (system),
 * 40 (try again), lock timeouts, prepared statements that are gone (26000, as behind some poolers), and the codes of errors of the network, of TLS (a certificate that has run out) and of
 * opening a connection, which are no SQLSTATEs.
 */
export function isUnavailable(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code
  if (typeof code !== 'string') return false
  if (isSqlState(code))
    return code === '55P03' || code === '26000' || /^(?:08|28|3D|53|57|25|58|40)/.test(code)
  return /^[A-Z][A-Z0-9_]+$/.test(code) && !STATEMENT_FAULTS.has(code)
}
