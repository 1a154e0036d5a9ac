/** The writes of one socket: one batch at a time, in the order they came, each under the principal it came with. */
import { type Principal, subjectOf } from '../auth/principal.ts'
import type { Table } from '../db/catalog.ts'
import { errorCode, isUnavailable } from '../db/error-code.ts'
import type { Log } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import { type AppliedBatch, type Batch, NotAdmitted } from '../sync/writes.ts'
import { decodeClientMessage } from '../wire/decode.ts'
import {
  BATCHES_UNSETTLED_MAX,
  BATCHES_WAITING_MAX,
  KEPT_DECODED_MAX,
  WAITING_CHARACTERS_MAX,
} from '../wire/limits.ts'
import type { Edit, EditOutcome, RejectionCode, ServerMessage, WriteMessage } from '../wire/messages.ts'
import type { RateLimit } from './rate-limit.ts'
import type { WaitingWrites } from './waiting-writes.ts'

/** What writes need of the rest of the server. */
export interface WriteTarget {
  readonly hub: { tableNamed(name: string | undefined): Table | null; ring(): void }
  readonly applyBatch: (batch: Batch) => Promise<AppliedBatch>
  readonly rateLimit: RateLimit
  readonly waitingWrites: WaitingWrites
  /** Null: what was sent under a token may be applied after its end. Otherwise the leeway after `exp`. */
  readonly expiryToleranceSeconds: number | null
  readonly log: Log
  readonly metrics: Metrics
}

interface WriteReplies {
  reply(message: ServerMessage): void
  /** The batch is in the database; its effect will come by the feed. */
  committed(table: Table, batch: string, xid: bigint): void
  /** Committed batches that a view of the socket does not have yet. */
  unsettled(): number
}

/** The token that a batch came under has ended before its turn. Nothing was decided. */
class TokenExpired extends Error {}

const RETRY_AFTER_MS = 1_000
/**
 * feature_not_supported: what a hot standby says to BEGIN READ WRITE (Postgres §27.4.1), before anything was tried. An edit
 * that raises it has an outcome of its own and does not get here.
 */
const READ_WRITE_REFUSED = '0A000'

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

  /** `frame`: what it came in. */
  add(message: WriteMessage, frame: string, principal: Principal): void {
    const { length } = frame
    const user = subjectOf(principal) ?? this.#address
    const table = this.#target.hub.tableNamed(message.table)
    if (table === null)
      return this.#rejectAll(
        { batch: message.batch, count: message.edits.length },
        'invalid',
        'This server does not serve a table of that name.',
      )
    // Not a rejection: it may be a batch that was applied before, whose outcome is a matter of record.
    const isFull =
      this.#waiting >= BATCHES_WAITING_MAX ||
      this.#replies.unsettled() >= BATCHES_UNSETTLED_MAX ||
      this.#waitingLength + length > WAITING_CHARACTERS_MAX ||
      !this.#target.waitingWrites.take(user, length)
    if (isFull) return this.#unavailable(message.batch)
    this.#waiting++
    this.#waitingLength += length
    const waiting = waitingBatch(message, frame)
    this.#last = this.#last.then(async () => {
      await this.#apply(waiting, principal, table)
      this.#waiting--
      this.#waitingLength -= length
      this.#target.waitingWrites.giveBack(user, length)
    })
  }

  drained(): Promise<void> {
    return this.#last
  }

  /** Never rejects. */
  async #apply(waiting: WaitingBatch, principal: Principal, table: Table): Promise<void> {
    const { batch, count } = waiting
    try {
      this.#requireValid(principal)
      let isAdmitted = false
      const admit = () => {
        // It may have waited for a connection, or for another try.
        this.#requireValid(principal)
        // Once for the batch, however often Postgres asks for another try.
        isAdmitted ||= this.#target.rateLimit.take(this.#address, count)
        return isAdmitted
      }
      const applied = await this.#target.applyBatch({
        principal,
        owner: subjectOf(principal) ?? this,
        table,
        id: batch,
        get edits() {
          return waiting.edits()
        },
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
        this.#rejectAll(waiting, 'rate_limited', 'Too many edits. Try again later.')
      } else if (this.#isToBeSentAgain(error)) {
        this.#unavailable(batch)
      } else {
        this.#target.log.error(`A batch failed as a whole (${errorCode(error)}).`)
        this.#rejectAll(waiting, 'error', 'The database refused the batch.')
      }
    }
  }

  /** The socket is about to be closed for it, or has another token by now: then the client sends the batch again. */
  #requireValid({ expiresAt }: Principal): void {
    const { expiryToleranceSeconds } = this.#target
    if (expiryToleranceSeconds === null || expiresAt === null) return
    if (Date.now() >= (expiresAt + expiryToleranceSeconds) * 1_000) throw new TokenExpired()
  }

  #isToBeSentAgain(error: unknown): boolean {
    return error instanceof TokenExpired || isUnavailable(error) || errorCode(error) === READ_WRITE_REFUSED
  }

  #unavailable(batch: string): void {
    this.#replies.reply({ type: 'unavailable', batch, retryAfterMs: RETRY_AFTER_MS })
  }

  #rejectAll(
    { batch, count }: Pick<WaitingBatch, 'batch' | 'count'>,
    code: RejectionCode,
    message: string,
  ): void {
    for (let n = 0; n < count; n++) this.#target.metrics.edit(code)
    const edits = new Array<EditOutcome>(count).fill({ status: 'rejected', code, message })
    this.#replies.reply({ type: 'outcome', batch, edits })
  }
}

/** A batch that may have to wait: a large one as its text, since its edits would take many times as much memory. */
interface WaitingBatch {
  readonly batch: string
  readonly count: number
  readonly edits: () => readonly Edit[]
}

function waitingBatch({ batch, edits }: WriteMessage, frame: string): WaitingBatch {
  if (frame.length <= KEPT_DECODED_MAX) return { batch, count: edits.length, edits: () => edits }
  return textBatch(batch, edits.length, frame)
}

/** A scope of its own, so that nothing in it keeps the edits. */
function textBatch(batch: string, count: number, frame: string): WaitingBatch {
  return { batch, count, edits: () => (decodeClientMessage(frame) as WriteMessage).edits }
}
