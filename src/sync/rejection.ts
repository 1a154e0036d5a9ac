/**
 * What a database error means for the edit that raised it. Messages name columns and constraints, which the client can
 * see anyway, and never values: Postgres's own texts quote rows, also rows that the writer cannot see.
 */
import { isSqlState, isUnavailable, QUERY_CANCELLED } from '../db/error-code.ts'
import type { RejectionCode } from '../wire/messages.ts'

interface Rejection {
  readonly code: RejectionCode
  readonly message: string
}

interface PostgresErrorFields {
  readonly code?: string
  readonly column_name?: string
  readonly constraint_name?: string
}

/** Null where the edit is not to blame and the whole batch should be tried again (SQLSTATE, Postgres appendix A). */
export function rejectionOf(error: unknown): Rejection | null {
  const { code = '', column_name: column, constraint_name: constraint } = error as PostgresErrorFields
  if (!isSqlState(code)) return null
  switch (code) {
    case '42501':
      return { code: 'forbidden', message: 'The policies and grants of this table do not allow this edit.' }
    case '23505':
    case '23P01':
      return { code: 'conflict', message: `Another row stands in the way${of('constraint', constraint)}.` }
    case '23502':
      return { code: 'invalid', message: `A value is missing${of('column', column)}.` }
    case '23503':
      return {
        code: 'invalid',
        message: `The edit breaks a reference between rows${of('constraint', constraint)}.`,
      }
    case '23514':
      return { code: 'invalid', message: `A value is not allowed${of('constraint', constraint)}.` }
    case '54000':
    case '54001':
    case '54011':
      return { code: 'too_large', message: 'The edit is too large for the database.' }
    case QUERY_CANCELLED:
    case '55P03':
      return { code: 'timeout', message: 'The edit took too long, or had to wait too long for another.' }
    case 'P0001':
      return { code: 'invalid', message: 'A trigger of the table refused the edit.' }
  }
  if (isUnavailable(error)) return null
  // 22 is bad data; XX and 42 are what PostGIS and casts raise for shapes and types they do not take.
  if (/^(?:22|42|XX|0A)/.test(code)) return { code: 'invalid', message: 'A value does not fit its column.' }
  return { code: 'error', message: 'The database refused the edit.' }
}

function of(kind: string, name: string | undefined): string {
  return name === undefined ? '' : ` (${kind} ${name})`
}
