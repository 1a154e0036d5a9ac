/**
 * Edits on their way to the server, in the order they were made: one batch under way, the rest waits and goes into the
 * next one. A batch keeps its id until it has an outcome, however many sockets that takes, and the server applies it
 * once. What an edit looks like meanwhile is `view.ts`.
 */
import { EDITS_PER_BATCH_MAX, FRAME_BYTES_MAX } from '../src/wire/limits.ts'
import type {
  ClientMessage,
  Edit,
  EditOutcome,
  Id,
  OutcomeMessage,
  UnavailableMessage,
  WriteMessage,
} from '../src/wire/messages.ts'
import { DatumError } from './datum-error.ts'
import type { Environment } from './environment.ts'
import { utf8Bytes } from './json.ts'
import { Listeners } from './listeners.ts'
import type { Draft, LocalEdit } from './local-edit.ts'
import type { View } from './view.ts'

/** Edits that may wait. Some hours of work without a network, and a bound for a program that edits in a loop. */
export const PENDING_EDITS_MAX = 10_000

/** Leaves room in the frame for what surrounds the edits. */
const BATCH_BYTES_MAX = FRAME_BYTES_MAX - 4096

/** Bounds for the server's `retryAfterMs`. */
const RETRY_AFTER_MS = { min: 100, max: 60_000 }

interface QueuedEdit extends Draft {
  readonly bytes: number
  readonly resolve: (id: Id) => void
  readonly reject: (error: DatumError) => void
}

interface Batch {
  readonly message: WriteMessage
  readonly edits: readonly QueuedEdit[]
}

/** What became of a local key: the server's id, or null while unknown; `refused` if its insert was. */
type KeyFate = { readonly id: Id | null; readonly refused: boolean }

interface WriteQueueParts {
  readonly environment: Pick<Environment, 'clock' | 'random' | 'uuid'>
  readonly table: string | undefined
  readonly view: View
  readonly send: (message: ClientMessage) => void
  /** Whether a subscription will tell when an applied batch is in the view. */
  readonly viewFollows: () => boolean
}

export class WriteQueue {
  /** Told the number of edits without an outcome, whenever it changes. */
  readonly counts = new Listeners<number>()
  readonly #parts: WriteQueueParts
  #waiting: QueuedEdit[] = []
  #underWay: Batch | null = null
  #open = false
  #sendingSoon = false
  #countTold = 0
  #cancelRetry: () => void = () => {}
  readonly #localKeys = new Map<Id, KeyFate>()

  constructor(parts: WriteQueueParts) {
    this.#parts = parts
  }

  get count(): number {
    return this.#waiting.length + (this.#underWay?.edits.length ?? 0)
  }

  /** The id behind a key that an insert has shown, or the key itself. */
  resolveKey(key: Id): Id {
    return this.#localKeys.get(key)?.id ?? key
  }

  isLocalKey(key: Id): boolean {
    return this.#localKeys.has(key)
  }

  /** Shows the edit at once and sends it when it can. Resolves with the row's id on the server's outcome. */
  add(draft: Draft): Promise<Id> {
    const bytes = utf8Bytes(JSON.stringify(draft.edit)) + 1
    if (bytes > BATCH_BYTES_MAX) return Promise.reject(tooLarge())
    if (this.count >= PENDING_EDITS_MAX) return Promise.reject(queueFull())
    if (this.#localKeys.get(draft.local.key)?.refused) return Promise.reject(insertRefused())
    if (draft.keyIsLocal) this.#localKeys.set(draft.local.key, { id: null, refused: false })
    return new Promise((resolve, reject) => {
      this.#waiting.push({ ...draft, bytes, resolve, reject })
      this.#parts.view.add(draft.local)
      this.#finish()
      this.#sendSoon()
    })
  }

  /** A socket takes writes: what was under way on another one is sent again under the same id. */
  open(): void {
    if (this.#open) return
    this.#open = true
    if (this.#underWay !== null) this.#parts.send(this.#underWay.message)
    else this.#sendNext()
  }

  /** The socket is gone. */
  close(): void {
    this.#open = false
    this.#cancelRetry()
  }

  outcome({ batch, edits: outcomes }: OutcomeMessage): void {
    const done = this.#take(batch)
    if (done === null) return
    done.edits.forEach((edit, index) => {
      this.#settle(edit, outcomes[index] ?? NO_OUTCOME, batch)
    })
    this.#sendNext()
    this.#finish()
  }

  /** The database is away: the same batch again, later. */
  unavailable({ batch, retryAfterMs }: UnavailableMessage): void {
    if (batch !== this.#underWay?.message.batch) return
    const { clock, random } = this.#parts.environment
    const waitMs = Math.min(Math.max(retryAfterMs, RETRY_AFTER_MS.min), RETRY_AFTER_MS.max)
    this.#cancelRetry()
    this.#cancelRetry = clock.setTimer(
      () => {
        if (this.#open && this.#underWay !== null) this.#parts.send(this.#underWay.message)
      },
      waitMs * (1 + random() / 4),
    )
  }

  /** Gives up on everything that has no outcome and takes it off the view. */
  rejectAll(error: DatumError): void {
    this.#cancelRetry()
    const given = [...(this.#underWay?.edits ?? []), ...this.#waiting]
    this.#underWay = null
    this.#waiting = []
    for (const edit of given) this.#refuse(edit, error)
    this.#finish()
  }

  #take(batch: string): Batch | null {
    const done = this.#underWay
    // An outcome of a batch that was given up (see `rejectAll`) may still come.
    if (done === null || done.message.batch !== batch) return null
    this.#cancelRetry()
    this.#underWay = null
    return done
  }

  #settle(queued: QueuedEdit, outcome: EditOutcome, batch: string): void {
    const { view, viewFollows } = this.#parts
    if (outcome.status === 'rejected') {
      this.#refuse(queued, new DatumError(outcome.code, outcome.message))
      return
    }
    const { local } = queued
    if (queued.keyIsLocal) {
      const key = local.key
      this.#localKeys.set(key, { id: outcome.id, refused: false })
      view.rekey(key, outcome.id)
    }
    if (viewFollows()) view.confirm(local, batch)
    else view.remove(local)
    queued.resolve(outcome.id)
  }

  #refuse(queued: QueuedEdit, error: DatumError): void {
    const { local, keyIsLocal } = queued
    this.#parts.view.remove(local)
    queued.reject(error)
    if (!keyIsLocal) return
    this.#localKeys.set(local.key, { id: null, refused: true })
    const orphans = this.#waiting.filter((other) => other.local.key === local.key)
    this.#waiting = this.#waiting.filter((other) => other.local.key !== local.key)
    for (const orphan of orphans) this.#refuse({ ...orphan, keyIsLocal: false }, insertRefused())
  }

  /** Edits that are made in one go travel together. */
  #sendSoon(): void {
    if (this.#sendingSoon) return
    this.#sendingSoon = true
    queueMicrotask(() => {
      this.#sendingSoon = false
      this.#sendNext()
    })
  }

  #sendNext(): void {
    if (!this.#open || this.#underWay !== null || this.#waiting.length === 0) return
    const { environment, table, send } = this.#parts
    const edits = this.#waiting.splice(0, this.#nextBatchLength())
    const message: WriteMessage = {
      type: 'write',
      batch: environment.uuid(),
      ...(table === undefined ? {} : { table }),
      edits: edits.map(({ edit, local }) => this.#withServerId(edit, local)),
    }
    this.#underWay = { message, edits }
    send(message)
  }

  #nextBatchLength(): number {
    let bytes = 0
    let length = 0
    for (const { bytes: more, edit, local } of this.#waiting) {
      bytes += more
      if (length === EDITS_PER_BATCH_MAX || bytes > BATCH_BYTES_MAX) break
      // The insert that this one builds on is in this very batch, and its id not known before the outcome.
      if (edit.op !== 'insert' && this.#localKeys.get(local.key)?.id === null) break
      length++
    }
    return length
  }

  #withServerId(edit: Edit, local: LocalEdit): Edit {
    return edit.op === 'insert' ? edit : { ...edit, id: this.resolveKey(local.key) }
  }

  #finish(): void {
    this.#parts.view.commit()
    if (this.count === this.#countTold) return
    this.#countTold = this.count
    this.counts.emit(this.count)
  }
}

const NO_OUTCOME: EditOutcome = {
  status: 'rejected',
  code: 'error',
  message: 'The server did not say what became of this edit.',
}

function tooLarge(): DatumError {
  return new DatumError('too_large', `An edit has at most ${BATCH_BYTES_MAX} bytes.`)
}

function queueFull(): DatumError {
  return new DatumError('queue_full', `At most ${PENDING_EDITS_MAX} edits can wait for the server.`)
}

function insertRefused(): DatumError {
  return new DatumError('not_found', 'The server refused to insert this row.')
}
