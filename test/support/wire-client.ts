/**
 * A client of the protocol with no cleverness: it applies frames by the rules of docs/PROTOCOL.md, keeps every frame,
 * and notes each one that breaks a rule. Independent of `client/`, so that the two cannot share a mistake.
 */

import { SUBPROTOCOL } from '../../src/wire/limits.ts'
import type {
  AuthenticatedMessage,
  Bbox,
  ClientMessage,
  Edit,
  EndedMessage,
  Id,
  OutcomeMessage,
  Row,
  ServerMessage,
  SubscribeMessage,
  TableInfo,
} from '../../src/wire/messages.ts'

/** What one subscription shows, by the frames so far. */
export interface View {
  readonly sub: string
  rows: Map<Id, Row>
  table: TableInfo | null
  resumed: boolean | null
  cursor: string | null
  /** Whether it holds what it held when the cursor came: then a resume need not list it. */
  isExact: boolean
  /** The newest completed request: 0 for the subscription itself, then the `seq` of a `bbox`; -1 before that. */
  complete: number
  settled: Set<string>
  ended: EndedMessage | null
  /** Number of rows and gone ids received since subscribing, to tell a difference from a snapshot. */
  rowsReceived: number
  goneReceived: number
}

export type Allowed = (row: Row, table: TableInfo) => boolean

export interface WireClientOptions {
  /** Subprotocols to offer; null: none. Default: `datum.v1`. */
  readonly protocols?: readonly string[] | null
  readonly headers?: Readonly<Record<string, string>>
  /** Whether a row may reach this client. A row that may not is a violation. Default: any row may. */
  readonly allowed?: Allowed
  /** Whether the server asks for a token: then no frame but `error` may come before `authenticated`. */
  readonly authRequired?: boolean
}

/** A safety net for a condition that never comes true; nothing is measured with it. */
export const GIVE_UP_MS = Number(process.env.DATUM_TEST_GIVE_UP_MS ?? 30_000)

/** How long to wait for a frame before looking at the truth again. */
const LOOK_AGAIN_MS = 250

export class WireClient {
  readonly frames: ServerMessage[] = []
  /** Rules of the protocol that the server broke, in words. Must stay empty. */
  readonly violations: string[] = []
  /** Whether a wait has failed over them already. */
  violationsReported = false
  readonly views = new Map<string, View>()
  /** Set once the socket is closed. */
  closed: { code: number; reason: string } | null = null
  authenticated = false
  allowed: Allowed

  readonly #socket: WebSocket
  readonly #waiting = new Set<() => void>()
  /** What {@link allowed} becomes when the server confirms a refresh: frames before that are of the old claims. */
  #allowedNext: Allowed[] = []
  /** Subscriptions that this client left: frames about them may still be on the way. */
  readonly #left = new Set<string>()
  readonly #authRequired: boolean

  private constructor(socket: WebSocket, options: WireClientOptions) {
    this.#socket = socket
    this.#authRequired = options.authRequired ?? false
    this.allowed = options.allowed ?? (() => true)
    socket.addEventListener('message', (event) => this.#receive(event.data))
    socket.addEventListener('close', (event) => {
      this.closed = { code: event.code, reason: event.reason }
      this.#wake()
    })
  }

  /** Opens a socket; rejects if the server refuses the upgrade. Sends nothing. */
  static async open(url: string, options: WireClientOptions = {}): Promise<WireClient> {
    const protocols = options.protocols === null ? undefined : [...(options.protocols ?? [SUBPROTOCOL])]
    const settings = { ...(protocols && { protocols }), ...(options.headers && { headers: options.headers }) }
    // Bun's WebSocket takes an object of options, which the DOM's types do not know.
    const socket = new WebSocket(url, settings as unknown as string[])
    const client = new WireClient(socket, options)
    await new Promise<void>((resolve, reject) => {
      socket.addEventListener('open', () => resolve(), { once: true })
      socket.addEventListener(
        'close',
        (event) => reject(new Error(`refused: ${event.code} ${event.reason}`)),
        {
          once: true,
        },
      )
    })
    return client
  }

  get protocol(): string {
    return this.#socket.protocol
  }

  // ---- sending ------------------------------------------------------------------------------------------------------

  send(message: ClientMessage): void {
    this.#socket.send(JSON.stringify(message))
  }

  /** Sends a frame as it is, for what no well-behaved client would send. */
  sendRaw(frame: string | Uint8Array<ArrayBuffer>): void {
    this.#socket.send(frame)
  }

  /** Sends a token and waits for the answer. `allowed`, if given, holds from that answer on. */
  async authenticate(token: string, allowed?: Allowed): Promise<AuthenticatedMessage> {
    const from = this.frames.length
    this.#allowedNext.push(allowed ?? this.allowed)
    this.send({ type: 'auth', token })
    return this.next('authenticated', from)
  }

  /** Opens a subscription and waits until its initial state is complete or it ended. */
  async subscribe(options: Omit<SubscribeMessage, 'type' | 'sub'> & { sub?: string } = {}): Promise<View> {
    const view = this.startSubscribe(options)
    await this.until(() => view.complete >= 0 || view.ended !== null, `${view.sub} is complete`)
    return view
  }

  /** Opens a subscription without waiting. With `resume`, `rows` are what the client kept. */
  startSubscribe(
    options: Omit<SubscribeMessage, 'type' | 'sub'> & { sub?: string } = {},
    rows: ReadonlyMap<Id, Row> = new Map(),
  ): View {
    const { sub = 's', ...rest } = options
    const view: View = {
      sub,
      rows: new Map(rows),
      table: null,
      resumed: null,
      cursor: null,
      isExact: false,
      complete: -1,
      settled: new Set(),
      ended: null,
      rowsReceived: 0,
      goneReceived: 0,
    }
    this.views.set(sub, view)
    this.#left.delete(sub)
    this.send({ type: 'subscribe', sub, ...rest })
    return view
  }

  /** Takes up a view of an earlier socket: sends its cursor and the ids it holds, and waits until it is complete. */
  async resume(earlier: View, options: { table?: string; bbox?: Bbox }): Promise<View> {
    const view = this.startResume(earlier, options)
    await this.until(() => view.complete >= 0 || view.ended !== null, `${view.sub} is resumed`)
    return view
  }

  /** The same without the ids, where those are what the cursor came with; with them if the server asks for them. */
  async resumeShortly(earlier: View, options: { table?: string; bbox?: Bbox }): Promise<View> {
    if (!earlier.isExact) return this.resume(earlier, options)
    const view = this.startShortResume(earlier, options)
    await this.until(() => view.complete >= 0 || view.ended !== null, `${view.sub} is resumed`)
    return view.ended?.code === 'held_needed' ? this.resume(earlier, options) : view
  }

  startShortResume(earlier: View, options: { table?: string; bbox?: Bbox }): View {
    if (earlier.cursor === null) throw new Error('a view without a cursor cannot be resumed')
    return this.startSubscribe(
      { sub: earlier.sub, ...options, resume: { cursor: earlier.cursor } },
      earlier.rows,
    )
  }

  startResume(earlier: View, options: { table?: string; bbox?: Bbox }): View {
    if (earlier.cursor === null) throw new Error('a view without a cursor cannot be resumed')
    const resume = { cursor: earlier.cursor, held: [...earlier.rows.keys()] }
    return this.startSubscribe({ sub: earlier.sub, ...options, resume }, earlier.rows)
  }

  /** Moves a subscription's box and waits until the new area is complete. */
  async setBbox(sub: string, seq: number, bbox: Bbox): Promise<void> {
    this.send({ type: 'bbox', sub, seq, bbox })
    const view = this.view(sub)
    await this.until(() => view.complete >= seq || view.ended !== null, `${sub} is complete for ${seq}`)
  }

  unsubscribe(sub: string): void {
    this.#left.add(sub)
    this.send({ type: 'unsubscribe', sub })
  }

  /** Sends edits as one batch, again for as long as the database is away, and waits for their outcomes. */
  async write(
    edits: readonly Edit[],
    options: { table?: string; batch?: string } = {},
  ): Promise<OutcomeMessage> {
    const { batch = crypto.randomUUID(), table } = options
    for (;;) {
      const from = this.frames.length
      this.send({ type: 'write', batch, edits, ...(table !== undefined && { table }) })
      const answer = await this.until(
        () => this.frames.slice(from).find((frame) => isAnswerTo(batch, frame)),
        `an answer to ${batch}`,
      )
      if (answer.type === 'outcome') return answer
      if (answer.type === 'unavailable') await Bun.sleep(answer.retryAfterMs)
    }
  }

  /** Sends a ping and waits for its pong, so that everything sent before it has been taken in by the server. */
  async ping(): Promise<Readonly<Record<string, string>>> {
    const from = this.frames.length
    this.send({ type: 'ping' })
    return (await this.next('pong', from)).cursors
  }

  /** Drops the connection without a closing handshake, as a lost network does. */
  kill(): void {
    const socket = this.#socket as WebSocket & { terminate?: () => void }
    if (socket.terminate) socket.terminate()
    else socket.close()
  }

  async close(): Promise<void> {
    this.#socket.close()
    await this.untilClosed()
  }

  // ---- waiting ------------------------------------------------------------------------------------------------------

  /**
   * Waits until the predicate is truthy, looking again after each frame, and returns its value. Rejects when a rule
   * was broken, and when the socket closes first.
   */
  async until<T>(predicate: () => T, what: string): Promise<NonNullable<T>> {
    const giveUpAt = Date.now() + GIVE_UP_MS
    for (;;) {
      this.violationsReported = this.violations.length > 0
      if (this.violationsReported)
        throw new Error(`while waiting until ${what}: ${this.violations.join('; ')}`)
      const value = predicate()
      if (value) return value
      if (this.closed) throw new Error(`closed with ${this.closed.code} ${this.closed.reason} before ${what}`)
      if (Date.now() > giveUpAt) throw new Error(`gave up waiting until ${what}\n${this.describe()}`)
      await this.#woken(giveUpAt)
    }
  }

  async untilClosed(): Promise<{ code: number; reason: string }> {
    const giveUpAt = Date.now() + GIVE_UP_MS
    while (!this.closed) {
      if (Date.now() > giveUpAt) throw new Error(`gave up waiting until it is closed\n${this.describe()}`)
      await this.#woken(giveUpAt)
    }
    return this.closed
  }

  /** Waits for the next frame, or a little while. Rejects when a rule was broken, and when the socket is closed. */
  async untilFrame(): Promise<void> {
    await this.#woken(Date.now() + LOOK_AGAIN_MS)
    await this.until(() => true, 'the next frame')
    if (this.closed) throw new Error(`closed with ${this.closed.code} ${this.closed.reason}`)
  }

  /** The first frame of this type at or after position `from`, waited for if need be. */
  next<T extends ServerMessage['type']>(type: T, from = 0): Promise<Extract<ServerMessage, { type: T }>> {
    return this.until(
      () => this.frames.slice(from).find((frame) => frame.type === type),
      `a frame ${type}`,
    ) as Promise<Extract<ServerMessage, { type: T }>>
  }

  view(sub = 's'): View {
    const view = this.views.get(sub)
    if (!view) throw new Error(`no subscription ${sub}`)
    return view
  }

  /** Text of the last frames, for the message of a failed test. */
  describe(): string {
    const last = this.frames.slice(-8).map((frame) => JSON.stringify(frame).slice(0, 400))
    return [
      `closed: ${JSON.stringify(this.closed)}`,
      `${this.frames.length} frames, the last:`,
      ...last,
    ].join('\n')
  }

  // ---- receiving ----------------------------------------------------------------------------------------------------

  #receive(data: unknown): void {
    if (typeof data !== 'string') {
      this.violations.push('a binary frame')
      this.#wake()
      return
    }
    const frame = JSON.parse(data) as ServerMessage
    this.frames.push(frame)
    if (this.#authRequired && !this.authenticated && frame.type !== 'authenticated' && frame.type !== 'error')
      this.violations.push(`I1: ${frame.type} before authentication`)
    if (frame.type === 'authenticated') {
      this.authenticated = true
      this.allowed = this.#allowedNext.shift() ?? this.allowed
    }
    if (frame.type === 'subscribed' || frame.type === 'view' || frame.type === 'ended')
      this.#applyToView(frame)
    this.#wake()
  }

  #applyToView(frame: Extract<ServerMessage, { sub: string }>): void {
    if (this.#left.has(frame.sub)) return
    const view = this.views.get(frame.sub)
    if (!view) return void this.violations.push(`${frame.type} of unknown subscription ${frame.sub}`)
    if (view.ended) return void this.violations.push(`I8: ${frame.type} after ended`)
    if (frame.type === 'ended') {
      view.ended = frame
      if (frame.code !== 'schema_changed') view.rows.clear()
      return
    }
    if (frame.type === 'subscribed') {
      if (view.table) this.violations.push('subscribed twice')
      view.table = frame.table
      view.resumed = frame.resumed
      if (!frame.resumed) view.rows.clear()
      return
    }
    if (!view.table) return void this.violations.push('view before subscribed')
    for (const row of frame.rows ?? []) {
      const id = row[view.table.idColumn]
      if (typeof id !== 'string' && typeof id !== 'number')
        this.violations.push(`row without id: ${JSON.stringify(row)}`)
      if (!this.allowed(row, view.table))
        this.violations.push(`I2: a row that is not allowed: ${JSON.stringify(row)}`)
      view.rows.set(String(id), row)
      view.rowsReceived++
    }
    for (const id of frame.gone ?? []) {
      if (!view.rows.delete(id)) this.violations.push(`I3: gone of ${id}, which is not held`)
      view.goneReceived++
    }
    if (frame.cursor !== undefined) view.cursor = frame.cursor
    view.isExact = frame.cursor !== undefined
    if (frame.complete !== undefined) {
      if (frame.complete <= view.complete)
        this.violations.push(`complete ${frame.complete} after ${view.complete}`)
      view.complete = Math.max(view.complete, frame.complete)
    }
    for (const batch of frame.settled ?? []) {
      if (view.settled.has(batch)) this.violations.push(`batch ${batch} settled twice`)
      view.settled.add(batch)
    }
  }

  #wake(): void {
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const resolve of waiting) resolve()
  }

  #woken(giveUpAt: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(0, giveUpAt - Date.now()) + 1)
      this.#waiting.add(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }
}

function isAnswerTo(batch: string, frame: ServerMessage): boolean {
  return (frame.type === 'outcome' || frame.type === 'unavailable') && frame.batch === batch
}
