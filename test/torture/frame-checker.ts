/**
 * Watches one socket, both ways, and holds every single frame against the rules: who may see what at that moment, what
 * `gone` may name, which answer belongs to which question. It knows messages only, so any client can be watched.
 */
import type {
  Bbox,
  ClientMessage,
  Edit,
  Id,
  OutcomeMessage,
  Row,
  ServerMessage,
  ViewMessage,
} from '../../src/wire/messages.ts'
import type { CursorChecker } from './cursor-checker.ts'
import type { History } from './history.ts'
import { claimsOf, isAllowed, isIn, type Policy, type UserClaims } from './model.ts'

/** What outlives a socket: a client's newest version of each row, and what the world allows at the moment. */
interface WatchedClient {
  readonly name: string
  readonly history: History
  readonly policies: ReadonlySet<Policy>
  readonly cursors: CursorChecker
  /** By table and id. */
  readonly versions: Map<string, bigint>
  /** What was held at the newest cursors of each table, which a resume without a list is about. */
  readonly heldAt: Map<string, Map<string, ReadonlySet<Id>>>
}

/** A client comes back with the last one that it got; a socket that died may have been sent some more. */
const CURSORS_KEPT = 16

interface WatchedSubscription {
  readonly table: string
  readonly held: Set<Id>
  /** Boxes asked for, the oldest being the last that was completed. */
  boxes: { readonly seq: number; readonly bbox: Bbox }[]
  completed: number
  isOpen: boolean
}

interface WatchedBatch {
  readonly edits: readonly Edit[]
  /** How often it was sent, less how often it was answered. */
  unanswered: number
  hasOutcome: boolean
}

export class FrameChecker {
  /** The claims that the server has confirmed; null before that. */
  claims: UserClaims | null = null
  readonly #client: WatchedClient
  readonly #asked: UserClaims[] = []
  readonly #subscriptions = new Map<string, WatchedSubscription>()
  readonly #batches = new Map<string, WatchedBatch>()

  constructor(client: WatchedClient) {
    this.#client = client
  }

  sent(message: ClientMessage): void {
    if (message.type === 'auth') this.#asked.push(claimsOf(message.token))
    if (message.type === 'write') {
      const { edits } = message
      const batch = this.#batches.get(message.batch) ?? { edits, unanswered: 0, hasOutcome: false }
      batch.unanswered++
      this.#batches.set(message.batch, batch)
    }
    if (message.type === 'bbox')
      this.#subscriptions.get(message.sub)?.boxes.push({ seq: message.seq, bbox: message.bbox })
    if (message.type === 'subscribe') {
      const { resume, table = 'features' } = message
      this.#subscriptions.set(message.sub, {
        table,
        held: new Set(resume === undefined ? [] : (resume.held ?? this.#heldAt(table, resume.cursor))),
        boxes: message.bbox === undefined ? [] : [{ seq: 0, bbox: message.bbox }],
        completed: -1,
        isOpen: false,
      })
    }
  }

  received(frame: ServerMessage): void {
    const { history } = this.#client
    history.count('frames')
    if (this.claims === null && frame.type !== 'authenticated' && frame.type !== 'error')
      this.#broken(`I1: ${frame.type} before authentication`)
    if (frame.type === 'authenticated') this.#authenticated()
    if (frame.type === 'error' && frame.code !== 1012)
      this.#broken(`closed with ${frame.code} ${frame.message}`)
    if (frame.type === 'ended' && frame.code === 'held_needed') {
      history.count('held needed')
      this.#subscriptions.delete(frame.sub)
    } else if (frame.type === 'ended') this.#broken(`${frame.sub} ended: ${frame.code} ${frame.message}`)
    if (frame.type === 'outcome') this.#outcome(frame)
    if (frame.type === 'unavailable') this.#answered(frame.batch)
    if (frame.type === 'pong')
      for (const [sub, cursor] of Object.entries(frame.cursors)) {
        const subscription = this.#subscriptions.get(sub)
        if (!subscription?.isOpen) this.#broken(`pong names ${sub}, which is not open`)
        else this.#remember(cursor, subscription)
      }
    if (frame.type === 'subscribed') {
      const subscription = this.#subscriptions.get(frame.sub)
      if (subscription === undefined || subscription.isOpen)
        return this.#broken(`subscribed ${frame.sub} unasked`)
      subscription.isOpen = true
      if (!frame.resumed) subscription.held.clear()
    }
    if (frame.type === 'view') this.#view(frame)
  }

  #authenticated(): void {
    const claims = this.#asked.shift()
    if (claims === undefined) return this.#broken('authenticated unasked')
    this.claims = claims
  }

  #answered(id: string): WatchedBatch | undefined {
    const batch = this.#batches.get(id)
    if (batch === undefined || --batch.unanswered < 0) this.#broken(`I7: an answer too many for batch ${id}`)
    return batch
  }

  /** One outcome for each edit, which names no other row than the edit did. */
  #outcome({ batch: id, edits: outcomes }: OutcomeMessage): void {
    const batch = this.#answered(id)
    if (batch === undefined) return
    batch.hasOutcome = true
    if (outcomes.length !== batch.edits.length)
      this.#broken(`I7: ${outcomes.length} outcomes for the ${batch.edits.length} edits of batch ${id}`)
    for (const [index, edit] of batch.edits.entries()) {
      const outcome = outcomes[index]
      const named = String(edit.op === 'insert' ? edit.columns.id : edit.id)
      if (outcome?.status === 'applied' && outcome.id !== named)
        this.#broken(`I3: the outcome of an edit of ${named} in batch ${id} names ${outcome.id}`)
    }
  }

  #view(frame: ViewMessage): void {
    const subscription = this.#subscriptions.get(frame.sub)
    if (!subscription?.isOpen) return this.#broken(`view of ${frame.sub}, which is not open`)
    for (const row of frame.rows ?? []) this.#row(row, frame.sub, subscription)
    for (const id of frame.gone ?? []) {
      this.#client.history.count('gone ids')
      if (!subscription.held.delete(id)) this.#broken(`I3: gone of ${id}, which ${frame.sub} does not hold`)
    }
    for (const batch of frame.settled ?? [])
      if (!this.#batches.get(batch)?.hasOutcome) this.#broken(`settled ${batch}, which has no outcome here`)
    if (frame.complete !== undefined) this.#complete(frame.complete, frame.sub, subscription)
    if (frame.cursor !== undefined) this.#cursor(frame.cursor, frame.settled ?? [], subscription)
  }

  #complete(complete: number, sub: string, subscription: WatchedSubscription): void {
    const isAsked = complete === 0 || subscription.boxes.some(({ seq }) => seq === complete)
    if (complete <= subscription.completed || !isAsked)
      this.#broken(`complete ${complete} of ${sub} after ${subscription.completed}`)
    subscription.completed = complete
    subscription.boxes = subscription.boxes.filter(({ seq }) => seq >= complete)
  }

  #heldAt(table: string, cursor: string): ReadonlySet<Id> {
    const held = this.#client.heldAt.get(table)?.get(cursor)
    // The client would be at fault, or this checker's memory too short.
    if (held === undefined)
      this.#broken(`a resume of ${table} without a list, with a cursor that was not given of late`)
    return held ?? new Set()
  }

  #remember(cursor: string, { table, held }: WatchedSubscription): void {
    const heldAt = this.#client.heldAt.get(table) ?? new Map<string, ReadonlySet<Id>>()
    this.#client.heldAt.set(table, heldAt)
    heldAt.delete(cursor)
    heldAt.set(cursor, new Set(held))
    for (const oldest of heldAt.keys()) {
      if (heldAt.size <= CURSORS_KEPT) break
      heldAt.delete(oldest)
    }
  }

  #cursor(cursor: string, settled: readonly string[], subscription: WatchedSubscription): void {
    this.#remember(cursor, subscription)
    const { table, held, boxes } = subscription
    const { name: actor, policies, cursors, versions } = this.#client
    const { claims } = this
    const [policy] = policies
    // While one policy replaces another a live view may be of the old one, and what lies in a smaller box is another matter.
    const isSure = policies.size === 1 && boxes.every(({ bbox }) => bbox[0] === -180 && bbox[2] === 180)
    if (claims === null || policy === undefined || !isSure) return
    cursors.saw(() => ({
      ...{ actor, table, cursor, claims, policy, settled },
      held: new Map([...held].map((id) => [id, versions.get(`${table}/${id}`) ?? 0n])),
    }))
  }

  #row(row: Row, sub: string, { table, held, boxes }: WatchedSubscription): void {
    const { history, policies, versions } = this.#client
    history.count('rows')
    const id = String(row.id)
    if (this.claims !== null && !isAllowed(row, this.claims, policies))
      this.#broken(`I2: a row of ${sub} for ${JSON.stringify(this.claims)}: ${brief(row)}`)
    if (boxes.length > 0 && !boxes.some(({ bbox }) => isIn(row, bbox)))
      this.#broken(`a row of ${sub} in no box asked for: ${brief(row)}`)
    const key = `${table}/${id}`
    const version = BigInt(row.v as string)
    const newest = versions.get(key) ?? 0n
    if (version < newest)
      this.#client.cursors.regressed({
        actor: this.#client.name,
        table,
        id,
        before: newest,
        after: version,
      })
    versions.set(key, version)
    held.add(id)
  }

  #broken(rule: string): void {
    this.#client.history.violation(this.#client.name, rule)
  }
}

function brief(row: Row): string {
  return JSON.stringify({ ...row, pad: undefined })
}

/** A frame in a line, for the log. */
export function describeFrame(frame: ServerMessage): string {
  if (frame.type !== 'view') return JSON.stringify(frame).slice(0, 400)
  const { rows = [], gone = [], type: _, ...rest } = frame
  const ids = rows.map(({ id, v }) => `${String(id).slice(-4)}:${String(v)}`)
  const left = gone.map((id) => id.slice(-4))
  return `view ${JSON.stringify(rest)} rows=${rows.length}[${ids}] gone=${gone.length}[${left}]`
}
