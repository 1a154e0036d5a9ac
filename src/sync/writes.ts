/**
 * Applies a batch of edits under a principal: one transaction, a savepoint for each edit, and the outcome recorded in
 * the same transaction, so that a batch sent twice is applied once (invariant 7).
 */
import type { Sql, TransactionSql } from 'postgres'
import { type Principal, subjectOf } from '../auth/principal.ts'
import { asPrincipal } from '../db/as-principal.ts'
import type { Table } from '../db/catalog.ts'
import { errorCode } from '../db/error-code.ts'
import { throwWithoutSchema } from '../db/schema-version.ts'
import { ROW_BYTES_MAX } from '../wire/limits.ts'
import type { Edit, EditOutcome } from '../wire/messages.ts'
import { type EditStatement, editStatement, InvalidEdit } from './edit-sql.ts'
import { settingsOf } from './principal-class.ts'
import { rowBytesSql } from './read-sql.ts'
import { rejectionOf } from './rejection.ts'

export interface AppliedBatch {
  readonly edits: readonly EditOutcome[]
  /** The transaction that applied it; null if nothing was applied. */
  readonly xid: bigint | null
}

/** The batch is new, and may not be taken now. Nothing was decided or written. */
export class NotAdmitted extends Error {}

/** Serialization failures and deadlocks are Postgres asking for another try (Postgres §13.5). */
const ATTEMPTS_MAX = 4
/** How long one edit may run, triggers and all. Then it is rejected with `timeout`. */
const EDIT_TIMEOUT_MS = 10_000
/** How long one edit may wait for a lock of the application. */
const LOCK_TIMEOUT_MS = 5_000
/** After this the edits of a batch that have not begun are rejected with `timeout`: a batch holds a connection. */
const BATCH_TIMEOUT_MS = 10_000

export interface Batch {
  readonly principal: Principal
  /** Whom its turn counts for: the user, or the socket where nobody is known. */
  readonly owner: unknown
  readonly table: Table
  readonly id: string
  readonly edits: readonly Edit[]
  /** Asked once it is known that the batch is new: one that was applied before is answered whatever the limits say. */
  readonly admit: () => boolean
}

/**
 * Resolves to the batch's outcome: the recorded one if it was applied before. Rejects only where nothing was decided: with
 * {@link NotAdmitted}, or because the database is away, and then the same batch can be sent again.
 */
export async function applyBatch(sql: Sql, batch: Batch): Promise<AppliedBatch> {
  for (let attempt = 1; ; attempt++) {
    try {
      const settings = settingsOf(batch.principal, batch.table)
      const scope = {
        settings,
        access: 'read write',
        timeoutMs: EDIT_TIMEOUT_MS,
        lockTimeoutMs: LOCK_TIMEOUT_MS,
      } as const
      return await asPrincipal(sql, scope, (transaction) => inTransaction(transaction, batch))
    } catch (error) {
      const code = errorCode(error)
      if ((code !== '40001' && code !== '40P01') || attempt === ATTEMPTS_MAX) throw error
    }
  }
}

async function inTransaction(transaction: TransactionSql, batch: Batch): Promise<AppliedBatch> {
  const { principal, table, id, admit } = batch
  const subject = subjectOf(principal) ?? ''
  const [begun] = await transaction<{ recorded: { outcome: EditOutcome[]; xid: string } | null }[]>`
    select datum.begin_batch(${subject}, ${id}::uuid) as recorded`.catch(throwWithoutSchema)
  const recorded = begun?.recorded ?? null
  if (recorded !== null) return { edits: recorded.outcome, xid: xidOf(recorded.outcome, recorded.xid) }
  if (!admit()) throw new NotAdmitted()
  // A deferred constraint would fail the commit, and every edit with it: check each edit's when it runs.
  await transaction.unsafe('set constraints all immediate')
  const outcomes: EditOutcome[] = []
  const giveUpAt = performance.now() + BATCH_TIMEOUT_MS
  // Large batches are decoded when they are looked at, so not before.
  for (const edit of batch.edits) {
    outcomes.push(performance.now() < giveUpAt ? await applyEdit(transaction, table, edit) : TOO_LATE)
  }
  const [finished] = await transaction<{ xid: string }[]>`
    select datum.finish_batch(${subject}, ${id}::uuid, ${JSON.stringify(outcomes)}::text::json), pg_current_xact_id()::text as xid`
  return { edits: outcomes, xid: xidOf(outcomes, finished?.xid ?? '0') }
}

/** From this size on an insert may make a row too large. */
const LARGE_INSERT_CHARACTERS = 64 * 1024
/** And so may one with a number that is longer when written out: `1e99`, `-1.e99`, `1_0e9_9`, but no part of a UUID. */
const SHORTENED_NUMBER = /(?<!\w)(?<!\w-)\d[\d_]*(?:\.[\d_]*)?e\+?\d[\d_]+(?![\w-])/i

const TOO_LATE: EditOutcome = {
  status: 'rejected',
  code: 'timeout',
  message: 'The edits before it in the batch took too long.',
}

function xidOf(outcomes: readonly EditOutcome[], xid: string): bigint | null {
  return outcomes.some(({ status }) => status === 'applied') ? BigInt(xid) : null
}

async function applyEdit(transaction: TransactionSql, table: Table, edit: Edit): Promise<EditOutcome> {
  try {
    const statement = editStatement(table, edit)
    return await transaction.savepoint(async (savepoint) => {
      const result = await savepoint.unsafe<{ id?: string; bytes?: number }[]>(
        statement.text,
        statement.parameters.map((value) =>
          typeof value === 'string' ? value : savepoint.json(value as never),
        ) as never[],
      )
      // Row security hides rows from UPDATE and DELETE without an error: then there was nothing of that id for this user.
      if (result.count === 0)
        return { status: 'rejected', code: 'not_found', message: 'There is no such row.' }
      const id = statement.id ?? result[0]?.id ?? ''
      const bytes = result[0]?.bytes ?? (await bytesOfInsert(savepoint, table, id, statement))
      if (bytes > ROW_BYTES_MAX) throw new RowTooLarge()
      return { status: 'applied', id }
    })
  } catch (error) {
    if (error instanceof RowTooLarge) {
      return {
        status: 'rejected',
        code: 'too_large',
        message: `A row may have ${ROW_BYTES_MAX} bytes as JSON.`,
      }
    }
    if (error instanceof InvalidEdit) {
      return { status: 'rejected', code: 'invalid', message: `Not a valid edit: ${error.message}.` }
    }
    const rejection = rejectionOf(error)
    if (rejection === null) throw error
    return { status: 'rejected', ...rejection }
  }
}

/** A row that is too large to be sent would end the view of everybody who sees it. */
class RowTooLarge extends Error {}

/** The size of an inserted row, as far as its writer sees it; 0 where it cannot be much, or nothing was inserted. */
async function bytesOfInsert(
  savepoint: TransactionSql,
  table: Table,
  id: string,
  { parameters, size }: EditStatement,
): Promise<number> {
  if (size !== 'unknown') return 0
  const text = JSON.stringify(parameters)
  if (text.length < LARGE_INSERT_CHARACTERS && !SHORTENED_NUMBER.test(text)) return 0
  const [row] = await savepoint.unsafe<{ bytes: number }[]>(rowBytesSql(table), [id])
  return row?.bytes ?? 0
}
