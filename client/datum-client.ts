/**
 * What an application holds: the public surface, and the wiring of the parts behind it. A frame goes from
 * `connection.ts` to `subscription.ts` or `write-queue.ts`, and from there into `view.ts`.
 */
import type { Bbox, Id, Row, ServerMessage, TableInfo } from '../src/wire/messages.ts'
import { CONNECT_TIMEOUT_MS, type ConnectOptions, checkOptions, socketUrl } from './connect-options.ts'
import { Connection } from './connection.ts'
import { DatumError } from './datum-error.ts'
import { type Environment, systemEnvironment } from './environment.ts'
import { type FeatureCollection, featureCollection } from './geojson.ts'
import type { TokenFacts } from './jwt.ts'
import { Listeners } from './listeners.ts'
import { type Draft, draftDelete, draftInsert, draftUpdate } from './local-edit.ts'
import { canonicalId } from './row-id.ts'
import type { ConnectionStatus } from './status.ts'
import { Subscription } from './subscription.ts'
import { TokenSource } from './token-source.ts'
import { View } from './view.ts'
import { WriteQueue } from './write-queue.ts'

/** What one frame of the server, or one edit, changed in {@link DatumClient.rows}. */
export interface Change<R extends object = Row> {
  /** Rows that are new or different, as they are now. */
  upserts: R[]
  /** Ids of rows that are no longer in the view. */
  gone: Id[]
}

/** Stops the calls to a callback. */
export type Unsubscribe = () => void

/** The application's wait for its client. */
interface Connecting {
  readonly resolve: () => void
  readonly reject: (error: DatumError) => void
}

/**
 * A live view of one table within one box, as the token's claims may see it, that can be edited. `R` is the shape of a
 * row: columns by name, the geometry as a GeoJSON geometry, `bigint` and `numeric` as strings.
 */
export class DatumClient<R extends object = Row> {
  /**
   * The rows by id, own pending edits applied. Always the same map, which changes in place; a row that changes is
   * replaced by another object.
   */
  readonly rows: ReadonlyMap<Id, R>

  readonly #environment: Environment
  readonly #connectTimeoutMs: number
  readonly #view = new View()
  readonly #connection: Connection
  readonly #subscription: Subscription
  readonly #writes: WriteQueue
  readonly #statuses = new Listeners<ConnectionStatus>()
  readonly #errors = new Listeners<DatumError>()
  #status: ConnectionStatus = 'disconnected'
  #over: DatumError | null = null
  #connecting: Connecting | null = null
  #cancelDeadline: () => void = () => {}
  /** A socket was lost before the first view was complete. */
  #stumbled = false
  /** Whose view this is: the token's `sub`. Undefined before the first socket. */
  #subject: string | null | undefined

  private constructor(environment: Environment, options: ConnectOptions) {
    checkOptions(options)
    const { token, table, bbox, serverUrl, connectTimeout, onStatusChange } = options
    const { clock, random } = environment
    const view = this.#view
    this.rows = view.rows as ReadonlyMap<Id, object> as ReadonlyMap<Id, R>
    this.#environment = environment
    this.#connectTimeoutMs = connectTimeout ?? CONNECT_TIMEOUT_MS
    if (onStatusChange !== undefined) this.#statuses.add(onStatusChange)
    this.#connection = new Connection({
      environment,
      url: socketUrl(serverUrl),
      tokens: token === undefined ? null : new TokenSource(token, clock),
      onReady: (facts) => this.#ready(facts),
      onRefreshed: (facts) => this.#subscription.refreshed(facts.claims),
      onMessage: (message) => this.#receive(message),
      onLost: () => this.#lost(),
      onStopped: (reason) => this.#stopped(reason),
      onTrouble: (error) => this.#report(error),
    })
    const send = this.#connection.send.bind(this.#connection)
    this.#subscription = new Subscription({
      clock,
      random,
      table,
      bbox,
      view,
      send,
      onAnswered: () => this.#answered(),
      onComplete: () => this.#complete(),
      onEnded: (reason) => this.#ended(reason),
    })
    this.#writes = new WriteQueue({
      environment,
      table,
      view,
      send,
      viewFollows: () => this.#subscription.alive,
    })
  }

  /**
   * Resolves when the first view is complete. Rejects with a {@link DatumError}: `unauthorized` if the server refuses
   * the token, `timeout` or `token_failed` if there is none in time, `invalid` for options that cannot work, or the
   * code with which the server ended the subscription (`unknown_table`, `policy_error`, `too_many_rows`, …).
   */
  static async connect<R extends object = Row>(options: ConnectOptions): Promise<DatumClient<R>> {
    return DatumClient.connectIn<R>(systemEnvironment(options.WebSocket), options)
  }

  /** @internal `connect` in a world of the tests' making. */
  static async connectIn<R extends object = Row>(
    environment: Environment,
    options: ConnectOptions,
  ): Promise<DatumClient<R>> {
    const client = new DatumClient<R>(environment, options)
    await new Promise<void>((resolve, reject) => {
      client.#connecting = { resolve, reject }
      client.#setDeadline()
      client.#setStatus('connecting')
      client.#connection.start()
    })
    return client
  }

  /** The rows that have a geometry, as GeoJSON. A new object each time; the geometries are the rows' own. */
  toGeoJSON(): FeatureCollection {
    const { geometryColumn, idColumn } = this.#table
    return featureCollection(this.#view.rows, geometryColumn, idColumn)
  }

  /** Calls back after each change of {@link rows}, own edits included, once for all that came together. */
  onChange(callback: (change: Change<R>) => void): Unsubscribe {
    return this.#view.changes.add((change) => callback(change as Change<object> as Change<R>))
  }

  /**
   * Inserts a row: at once in {@link rows}, then on the server. Resolves with its id. Without an id in the columns,
   * a UUID is made here; an id of another type is given by the server, and until then the row has a key that begins
   * with `local:`. Rejects with a {@link DatumError} and takes the row back if the server refuses it.
   */
  async insert(columns: Partial<R>): Promise<Id> {
    const { uuid } = this.#environment
    return this.#edit(draftInsert(columns, this.#table, uuid))
  }

  /** Changes these columns of a row and leaves the others as they are on the server. Resolves and rejects as `insert`. */
  async update(id: Id | number | bigint, columns: Partial<R>): Promise<void> {
    await this.#edit(draftUpdate(this.#key(id), columns, this.#table))
  }

  /** Deletes a row. Resolves and rejects as `insert`. */
  async delete(id: Id | number | bigint): Promise<void> {
    await this.#edit(draftDelete(this.#key(id)))
  }

  /**
   * Moves the box: rows that enter are added, rows that leave are dropped. Resolves when the view is complete for this
   * box, or for a newer one that was set meanwhile. Rejects with `invalid` if it is no box or the table has no
   * geometry, and with the server's code if the server ends the subscription over it (`too_many_rows`).
   */
  async setBbox(bbox: Bbox): Promise<void> {
    if (this.#over !== null) throw this.#afterTheEnd(this.#over)
    return this.#subscription.setBbox(bbox)
  }

  get connectionStatus(): ConnectionStatus {
    return this.#status
  }

  onStatusChange(callback: (status: ConnectionStatus) => void): Unsubscribe {
    return this.#statuses.add(callback)
  }

  /** Own edits whose outcome is not known yet. */
  get pendingCount(): number {
    return this.#writes.count
  }

  onPendingChange(callback: (count: number) => void): Unsubscribe {
    return this.#writes.counts.add(callback)
  }

  /**
   * Calls back when something failed that no promise tells: the server ended the subscription (its rows are gone then),
   * the token function fails or its tokens are refused (it will be called again), or the connection is over.
   */
  onError(callback: (error: DatumError) => void): Unsubscribe {
    return this.#errors.add(callback)
  }

  /** Ends the connection. Edits without an outcome reject with `disconnected`; the server may have applied them. */
  async disconnect(): Promise<void> {
    this.#connection.stop(new DatumError('disconnected', 'The client was disconnected.'))
  }

  get #table(): TableInfo {
    // An application gets its client after the first `subscribed`.
    return this.#subscription.table!
  }

  /** The row's id, or the local key by which `write-queue.ts` knows it. */
  #key(id: Id | number | bigint): Id {
    if (typeof id === 'string' && this.#writes.isLocalKey(id)) return this.#writes.resolveKey(id)
    return canonicalId(id, this.#table.idType)
  }

  #edit(draft: Draft): Promise<Id> {
    if (this.#over !== null) return Promise.reject(this.#afterTheEnd(this.#over))
    return this.#writes.add(draft)
  }

  #receive(message: ServerMessage): void {
    switch (message.type) {
      case 'subscribed':
      case 'view':
        if (!this.#stumbled) this.#setDeadline()
        this.#subscription.receive(message)
        break
      case 'ended':
        this.#subscription.receive(message)
        break
      case 'pong':
        this.#subscription.pong(message)
        break
      case 'outcome':
        this.#writes.outcome(message)
        break
      case 'unavailable':
        this.#writes.unavailable(message)
        break
    }
  }

  #ready(facts: TokenFacts | null): void {
    const subject = facts?.subject ?? null
    if (this.#subject !== undefined && subject !== this.#subject) this.#changeHands()
    this.#subject = subject
    this.#subscription.open(facts?.claims ?? '')
  }

  /** The token is somebody else's now: neither rows nor edits of the one before may stay. */
  #changeHands(): void {
    this.#subscription.forget()
    this.#view.clear()
    this.#writes.rejectAll(new DatumError('unauthorized', 'The token now belongs to another subject.'))
  }

  #answered(): void {
    this.#setStatus('connected')
    this.#writes.open()
  }

  #complete(): void {
    if (this.#connecting === null) return
    this.#cancelDeadline()
    this.#connection.establish()
    this.#connecting.resolve()
    this.#connecting = null
  }

  #ended(reason: DatumError): void {
    if (this.#connecting !== null) this.#connection.stop(reason)
    else this.#report(reason)
  }

  #lost(): void {
    this.#stumbled = true
    this.#subscription.close()
    this.#writes.close()
    this.#setStatus('connecting')
  }

  #stopped(reason: DatumError): void {
    this.#over = reason
    this.#cancelDeadline()
    this.#subscription.close()
    this.#writes.close()
    this.#setStatus('disconnected')
    this.#writes.rejectAll(reason)
    this.#subscription.rejectWaiters(reason)
    if (this.#connecting !== null) this.#connecting.reject(reason)
    else if (reason.code !== 'disconnected') this.#report(reason)
    this.#connecting = null
  }

  #report(error: DatumError): void {
    if (this.#connecting !== null) return
    if (this.#errors.size > 0) this.#errors.emit(error)
    else console.warn(`datum: ${error.message} (${error.code})`)
  }

  #setStatus(status: ConnectionStatus): void {
    if (status === this.#status || (this.#over !== null && status !== 'disconnected')) return
    this.#status = status
    this.#statuses.emit(status)
  }

  #setDeadline(): void {
    this.#cancelDeadline()
    if (this.#connecting === null || this.#connectTimeoutMs > MAX_TIMER_MS) return
    const giveUp = () => this.#connection.stop(this.#timeoutError())
    this.#cancelDeadline = this.#environment.clock.setTimer(giveUp, this.#connectTimeoutMs)
  }

  #timeoutError(): DatumError {
    const { trouble } = this.#connection
    if (trouble?.code === 'token_failed') return trouble
    const last = trouble === null ? '' : ` ${trouble.message}`
    return new DatumError('timeout', `No complete view within ${this.#connectTimeoutMs} ms.${last}`)
  }

  #afterTheEnd(reason: DatumError): DatumError {
    return new DatumError('disconnected', `The client is disconnected: ${reason.message}`)
  }
}

/** A longer timer would fire at once. As a wait for a connection it means for ever. */
const MAX_TIMER_MS = 2 ** 31 - 1
