/** The writes of one socket: one batch at a time, in the order they came, each under the principal it came with. */
import type { Principal } from '../auth/principal.ts'
import type { Table } from '../db/catalog.ts'
import { errorCode, isUnavailable } from '../db/error-code.ts'
import type { Log } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import { type AppliedBatch, type Batch, NotAdmitted } from '../sync/writes.ts'
import { BATCHES_WAITING_MAX, WAITING_CHARACTERS_MAX } from '../wire/limits.ts'
import type { RejectionCode, ServerMessage, WriteMessage } from '../wire/messages.ts'
import type { RateLimit } from './rate-limit.ts'

/** What writes need of the rest of the server. */
export interface WriteTarget {
  readonly hub: { tableNamed(name: string | undefined): Table | null; ring(): void }
  readonly applyBatch: (batch: Batch) => Promise<AppliedBatch>
  readonly rateLimit: RateLimit
  readonly log: Log
  readonly metrics: Metrics
}

export interface WriteReplies {
  reply(message: ServerMessage): void
  /** The batch is in the database; its effect will come by the feed. */
  committed(table: Table, batch: string, xid: bigint): void
}

const RETRY_AFTER_MS = 1_000

export class WriteQueue {
  readonly #target: WriteTarget
  readonly #address: string
  readonly #replies: WriteReplies
  #waiting = 0
  #waitingLength = 0
  #last: Promise<void> = Promise.resolve()

  constructor(target: WriteTarget, address: string, replies: WriteReplies) {
    this.#target = target
    this.#address = address
    this.#replies = replies
  }

  /** `length`: of the frame that it came in, in characters. */
  add(message: WriteMessage, length: number, principal: Principal): void {
    const table = this.#target.hub.tableNamed(message.table)
    if (table === null)
      return this.#rejectAll(message, 'invalid', 'This server does not serve a table of that name.')
    // Not a rejection: it may be a batch that was applied before, whose outcome is a matter of record.
    const isFull =
      this.#waiting >= BATCHES_WAITING_MAX || this.#waitingLength + length > WAITING_CHARACTERS_MAX
    if (isFull) return this.#unavailable(message.batch)
    this.#waiting++
    this.#waitingLength += length
    this.#last = this.#last.then(async () => {
      await this.#apply(message, principal, table)
      this.#waiting--
      this.#waitingLength -= length
    })
  }

  drained(): Promise<void> {
    return this.#last
  }

  /** Never rejects. */
  async #apply(message: WriteMessage, principal: Principal, table: Table): Promise<void> {
    const { batch, edits } = message
    try {
      let isAdmitted = false
      const admit = () => {
        // Once for the batch, however often Postgres asks for another try.
        isAdmitted ||= this.#target.rateLimit.take(this.#address, edits.length)
        return isAdmitted
      }
      const applied = await this.#target.applyBatch({
        principal,
        owner: principal.subject ?? this,
        table,
        id: batch,
        edits,
        admit,
      })
      for (const edit of applied.edits)
        this.#target.metrics.edit(edit.status === 'applied' ? 'applied' : edit.code)
      this.#replies.reply({ type: 'outcome', batch, edits: applied.edits })
      if (applied.xid !== null) {
        this.#replies.committed(table, batch, applied.xid)
        this.#target.hub.ring()
      }
    } catch (error) {
      if (error instanceof NotAdmitted) {
        this.#rejectAll(message, 'rate_limited', 'Too many edits. Try again later.')
      } else if (isUnavailable(error)) {
        this.#unavailable(batch)
      } else {
        this.#target.log.error(`A batch failed as a whole (${errorCode(error)}).`)
        this.#rejectAll(message, 'error', 'The database refused the batch.')
      }
    }
  }

  #unavailable(batch: string): void {
    this.#replies.reply({ type: 'unavailable', batch, retryAfterMs: RETRY_AFTER_MS })
  }

  #rejectAll({ batch, edits }: WriteMessage, code: RejectionCode, message: string): void {
    for (const _ of edits) this.#target.metrics.edit(code)
    this.#replies.reply({
      type: 'outcome',
      batch,
      edits: edits.map(() => ({ status: 'rejected', code, message })),
    })
  }
}
