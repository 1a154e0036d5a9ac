/**
 * The client's subscription: asks for the view on each new socket, from the last cursor where it can, and moves its
 * box. What the server sends goes into `view.ts`.
 */
import { bboxProblem } from '../src/wire/bbox.ts'
import { FRAME_BYTES_MAX, ID_LENGTH_MAX, ROWS_PER_SUBSCRIPTION_MAX } from '../src/wire/limits.ts'
import type {
  Bbox,
  ClientMessage,
  EndedMessage,
  PongMessage,
  SubscribedMessage,
  SubscribeMessage,
  TableInfo,
  ViewMessage,
} from '../src/wire/messages.ts'
import { backoffMs, TABLE_UNSERVED } from './backoff.ts'
import { DatumError } from './datum-error.ts'
import type { Clock } from './environment.ts'
import { utf8Bytes } from './json.ts'
import type { View } from './view.ts'

type State =
  /** There is no socket to ask on. */
  | { readonly phase: 'offline' }
  /** `subscribe` was sent, with this box. */
  | { readonly phase: 'asked'; readonly sub: string; readonly bbox: Bbox | undefined }
  /** Rows are coming; the view is not the whole truth yet. */
  | { readonly phase: 'filling'; readonly sub: string; readonly fresh: boolean }
  | { readonly phase: 'live'; readonly sub: string }
  /** The server ended it and says why. */
  | { readonly phase: 'ended'; readonly reason: DatumError }

/** A moment when the view was the whole truth, and for what: only for the same does it save anything. */
interface ResumePoint {
  readonly cursor: string
  readonly bbox: Bbox | undefined
  readonly claims: string
  /** Whether nothing has come or gone since the cursor came: then the server need not be told what is held. */
  readonly isExact: boolean
}

/** Leaves room in the frame for what surrounds the ids. */
const HELD_BYTES_MAX = FRAME_BYTES_MAX - 4096

/** Pause before asking again where a table changes faster than it can be read. */
const RESUBSCRIBE_MS = 1_000

interface SubscriptionParts {
  readonly clock: Clock
  readonly random: () => number
  readonly table: string | undefined
  readonly bbox: Bbox | undefined
  readonly view: View
  readonly send: (message: ClientMessage) => void
  /** The server has answered, with a view or with its end: it is awake and takes writes. */
  readonly onAnswered: () => void
  readonly onComplete: () => void
  readonly onEnded: (reason: DatumError) => void
}

interface Waiter {
  readonly resolve: () => void
  readonly reject: (error: DatumError) => void
}

export class Subscription {
  readonly #parts: SubscriptionParts
  #state: State = { phase: 'offline' }
  #table: TableInfo | null = null
  /** The box that the application wants; the server may not know it yet. */
  #bbox: Bbox | undefined
  #claims = ''
  #resumePoint: ResumePoint | null = null
  #names = 0
  /** Newest `seq` that was sent and that was answered in full. */
  #seqSent = 0
  #seqDone = 0
  #waiters: Waiter[] = []
  #cancelResubscribe: () => void = () => {}
  /** Answers in a row that the table is not served at the moment. */
  #timesUnserved = 0

  constructor(parts: SubscriptionParts) {
    this.#parts = parts
    this.#bbox = parts.bbox
  }

  /** What the server said about the table; null before it first did. */
  get table(): TableInfo | null {
    return this.#table
  }

  /** Whether view frames are to be expected. */
  get alive(): boolean {
    return this.#state.phase !== 'ended' && this.#state.phase !== 'offline'
  }

  /** A new socket, which speaks for these claims. */
  open(claims: string): void {
    this.#claims = claims
    this.#subscribe()
  }

  /** The socket's claims were swapped: what the server refused before may be allowed now. */
  refreshed(claims: string): void {
    this.#claims = claims
    if (this.#state.phase === 'ended') this.#subscribe()
  }

  /** The socket is gone. */
  close(): void {
    this.#cancelResubscribe()
    this.#state = { phase: 'offline' }
  }

  /** The rows here are of no use for the next `subscribe`. */
  forget(): void {
    this.#resumePoint = null
  }

  /** The client is over: nobody will answer those who wait. */
  rejectWaiters(error: DatumError): void {
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error)
  }

  /** Resolves when the view is complete for this box or a newer one. */
  setBbox(bbox: Bbox): Promise<void> {
    const problem = this.#table?.geometryColumn === null ? 'the table has no geometry' : bboxProblem(bbox)
    if (problem !== null) return Promise.reject(new DatumError('invalid', `Cannot set the box: ${problem}.`))
    const news = !sameBox(bbox, this.#bbox)
    if (!news && this.#state.phase === 'live' && this.#seqDone === this.#seqSent) return Promise.resolve()
    this.#bbox = [...bbox]
    if (this.#state.phase === 'ended') this.#subscribe()
    else if (news && 'sub' in this.#state && this.#state.phase !== 'asked') this.#move(this.#state.sub)
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }))
  }

  receive(message: SubscribedMessage | ViewMessage | EndedMessage): void {
    // A frame may still be on its way from a subscription that was replaced.
    if (!('sub' in this.#state) || this.#state.sub !== message.sub) return
    if (message.type === 'subscribed') this.#opened(message)
    else if (message.type === 'view') this.#viewed(message)
    else this.#ended(message)
  }

  pong({ cursors }: PongMessage): void {
    if (this.#state.phase === 'live' && Object.hasOwn(cursors, this.#state.sub))
      this.#remember(cursors[this.#state.sub]!)
  }

  #subscribe(): void {
    this.#cancelResubscribe()
    const { table, send } = this.#parts
    const sub = `s${++this.#names}`
    const resume = this.#resume()
    this.#state = { phase: 'asked', sub, bbox: this.#bbox }
    this.#seqSent = 0
    this.#seqDone = -1
    send({
      type: 'subscribe',
      sub,
      ...(table !== undefined && { table }),
      ...(this.#bbox !== undefined && { bbox: this.#bbox }),
      ...(resume !== undefined && { resume }),
    })
  }

  #resume(): SubscribeMessage['resume'] {
    const point = this.#resumePoint
    if (point === null || point.claims !== this.#claims || !sameBox(point.bbox, this.#bbox)) return undefined
    // The server knows what that was, and asks if it does not.
    if (point.isExact) return { cursor: point.cursor }
    const held = this.#parts.view.heldIds()
    // The server would take such a message for a mistake and close the socket.
    const fits =
      held.length <= ROWS_PER_SUBSCRIPTION_MAX &&
      held.every((id) => id.length <= ID_LENGTH_MAX) &&
      utf8Bytes(JSON.stringify(held)) <= HELD_BYTES_MAX
    return fits ? { cursor: point.cursor, held } : undefined
  }

  #opened({ sub, table, resumed }: SubscribedMessage): void {
    if (this.#state.phase !== 'asked') return
    const asked = this.#state.bbox
    this.#state = { phase: 'filling', sub, fresh: !resumed }
    this.#table = table
    this.#parts.view.begin(table, !resumed)
    this.#parts.onAnswered()
    if (this.#bbox !== undefined && !sameBox(asked, this.#bbox)) this.#move(sub)
  }

  #move(sub: string): void {
    // From here on the view is between two boxes, and a cursor would be true for neither.
    this.#resumePoint = null
    this.#parts.send({ type: 'bbox', sub, seq: ++this.#seqSent, bbox: this.#bbox! })
  }

  #viewed({ rows = [], gone = [], settled, complete, cursor }: ViewMessage): void {
    const { view, onComplete } = this.#parts
    view.apply(rows, gone)
    if (settled !== undefined) view.settle(settled)
    if (complete !== undefined) this.#completed(complete)
    if (cursor !== undefined) this.#remember(cursor)
    else if (rows.length + gone.length > 0) this.#resumeWithList()
    view.commit()
    if (complete === undefined) return
    onComplete()
    if (this.#seqDone >= this.#seqSent) for (const waiter of this.#waiters.splice(0)) waiter.resolve()
  }

  #completed(seq: number): void {
    this.#seqDone = Math.max(this.#seqDone, seq)
    this.#timesUnserved = 0
    if (this.#state.phase !== 'filling') return
    if (this.#state.fresh) this.#resumePoint = null
    this.#state = { phase: 'live', sub: this.#state.sub }
    this.#parts.view.complete()
  }

  #remember(cursor: string): void {
    if (this.#state.phase !== 'live' || this.#seqDone < this.#seqSent) return
    this.#resumePoint = { cursor, bbox: this.#bbox, claims: this.#claims, isExact: true }
  }

  /** What is held may be something else than when the last cursor came. */
  #resumeWithList(): void {
    if (this.#resumePoint !== null) this.#resumePoint = { ...this.#resumePoint, isExact: false }
  }

  #ended({ code, message }: EndedMessage): void {
    const wasLive = this.#state.phase === 'live'
    if (code === 'held_needed') {
      this.#resumeWithList()
      return this.#subscribe()
    }
    this.#resumePoint = null
    if (code === 'schema_changed') {
      // The old rows stay until those of the new shape are here.
      if (wasLive) {
        this.#subscribe()
      } else {
        this.#state = { phase: 'offline' }
        this.#cancelResubscribe = this.#parts.clock.setTimer(() => this.#subscribe(), RESUBSCRIBE_MS)
      }
      return
    }
    const { view, clock, random, onEnded, onAnswered } = this.#parts
    const reason = new DatumError(code, message)
    this.#state = { phase: 'ended', reason }
    view.clear()
    view.commit()
    this.rejectWaiters(reason)
    // The server's trouble and not this user's: it may pass. It is told once.
    const isOfServer = code === 'error' || code === 'forbidden'
    if (isOfServer) {
      const waitMs = backoffMs(TABLE_UNSERVED, ++this.#timesUnserved, random)
      this.#cancelResubscribe = clock.setTimer(() => this.#subscribe(), waitMs)
    }
    if (!isOfServer || this.#timesUnserved === 1) onEnded(reason)
    onAnswered()
  }
}

function sameBox(a: Bbox | undefined, b: Bbox | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && a.every((edge, index) => edge === b[index]))
}
