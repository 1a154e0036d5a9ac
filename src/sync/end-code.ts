/** What the error of a read means for the subscription that it was for. Errors deny (invariant 8). */

import { isSqlState, isUnavailable, QUERY_CANCELLED } from '../db/error-code.ts'
import type { EndCode } from '../wire/messages.ts'

interface End {
  readonly code: EndCode
  /** Says nothing about rows, values or policies. */
  readonly message: string
  /** False: the statement was not to blame (a lost connection, a restart), and the read is tried again. */
  readonly isFinal: boolean
}

/** By SQLSTATE (Postgres, appendix A), or the code of a connection error. */
export function endOf(code: string): End {
  if (code === '42501') {
    return { code: 'forbidden', message: 'The database role may not read this table.', isFinal: true }
  }
  // statement_timeout. Cancelled by an operator looks the same.
  if (code === QUERY_CANCELLED) {
    return { code: 'timeout', message: 'Reading this view took too long.', isFinal: true }
  }
  if (isUnavailable({ code }))
    return { code: 'error', message: 'The database is not available.', isFinal: false }
  if (!isSqlState(code))
    return { code: 'error', message: 'The server could not read this view.', isFinal: true }
  return {
    code: 'policy_error',
    message: 'The policies of this table raised an error for this token.',
    isFinal: true,
  }
}
