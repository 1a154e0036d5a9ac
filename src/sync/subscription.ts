/**
 * One subscription: what it holds, what may have changed for it, and the loop that brings the two together. It is
 * *live* when nothing is outstanding; then the hub reads for it along with everybody of its class. Otherwise it catches
 * up by itself, at the pace of its socket, and the hub only leaves it ids.
 */
import type { Principal } from '../auth/principal.ts'
import type { ClassResult, ReadRow } from '../db/as-principal.ts'
import { type ClientCursor, formatCursor, isVisible } from '../db/cursor.ts'
import { errorCode } from '../db/error-code.ts'
import { isLonger } from '../wire/byte-length.ts'
import {
  GONE_IDS_MAX,
  ROW_BYTES_MAX,
  ROWS_PER_SOCKET_MAX,
  ROWS_PER_SUBSCRIPTION_MAX,
  VIEW_FRAME_CHARACTERS,
} from '../wire/limits.ts'
import type { Bbox, EndCode, Id } from '../wire/messages.ts'
import type { Delivery } from './delivery.ts'
import { endOf } from './end-code.ts'
import { HeldSet } from './held-set.ts'
import { classOf, type PrincipalClass } from './principal-class.ts'
import type { Subscriber } from './subscriber.ts'
import { type SubscriptionHome, TableChanged } from './subscription-home.ts'
import { isInBox } from './view-box.ts'
import { chunksOf, type ViewParts, viewFrame } from './view-frame.ts'
import { viewIdentity } from './view-seal.ts'

/**
 * How much of the view must be compared with the database: nothing; which rows are in it (after a claims swap or a new
 * box, where the rows held are still right); or all of it (changes were lost count of).
 */
type Compare = 'nothing' | 'membership' | 'everything'

/** What one catch-up read should bring: a few frames. */
const READ_BYTES = 512 * 1024
/**
 * How long a snapshot may stream: it has a connection to itself meanwhile. What is left then is read in small reads, for
 * which everybody takes turns.
 */
const SNAPSHOT_MS_MAX = 3_000
const RETRY_MS = 500
const WATCHED_BOXES_MAX = 8
const GLOBE: Bbox = [-180, -90, 180, 90]

interface SubscriptionOptions {
  readonly name: string
  readonly bbox: Bbox | null
  readonly subscriber: Subscriber
  readonly home: SubscriptionHome<Subscription>
  /** What a resuming client says it holds. */
  readonly held: HeldSet
}

export class Subscription {
  readonly name: string
  readonly subscriber: Subscriber
  readonly #home: SubscriptionHome<Subscription>
  #held: HeldSet
  /** How many of them the home has been told of. */
  #heldTold = 0
  readonly #dirty = new Set<Id>()
  /** Batches written on this socket, with their transactions, until the view has them. */
  readonly #unsettled = new Map<string, bigint>()
  #bbox: Bbox | null
  /**
   * The boxes that rows held may lie in: the newest, and those before it until a comparison has let go of what is only
   * in them. A change there must be noticed, or a box that comes back would find a row held but out of date.
   */
  #watched: readonly Bbox[] | null
  #class: PrincipalClass
  #classPrincipal: Principal
  #compare: Compare
  /** Made when it is needed first; undefined: not made yet. */
  #identity: string | null | undefined
  /** The last cursor that the client was given, without and with its seal. */
  #given: { readonly cursor: string; readonly sealed: string } | null = null
  /** Grows whenever what was being read may no longer be sent as it is: another box, other claims, another table. */
  #generation = 0
  #requested = 0
  #completed = -1
  #stretch = 0
  /** From the beginning: nothing is sent before {@link start}. */
  #catchingUp = true
  #run: Promise<void> = Promise.resolve()
  #ended = false
  #onWritable: (() => void) | null = null

  constructor({ name, bbox, subscriber, home, held }: SubscriptionOptions) {
    this.name = name
    this.subscriber = subscriber
    this.#home = home
    this.#bbox = bbox
    this.#held = held
    this.#tellHeld()
    // What a resuming client holds may lie in whatever box it had before.
    this.#watched = bbox === null ? null : this.#held.size > 0 ? [GLOBE] : [bbox]
    this.#classPrincipal = subscriber.principal
    this.#class = classOf(subscriber.principal, home.table)
    this.#compare = 'membership'
  }

  get bbox(): Bbox | null {
    return this.#bbox
  }

  /** Where changes matter to it; null: everywhere. */
  get watched(): readonly Bbox[] | null {
    return this.#watched
  }

  get tableOid(): number {
    return this.#home.table.oid
  }

  get class(): PrincipalClass {
    return this.#class
  }

  get heldCount(): number {
    return this.#held.size
  }

  /** Batches of its socket that it has not said to be settled. */
  get unsettledCount(): number {
    return this.#unsettled.size
  }

  get isEnded(): boolean {
    return this.#ended
  }

  /** Whether the hub may read for it and deliver. Otherwise it wants the ids. */
  get isLive(): boolean {
    return (
      !this.#catchingUp &&
      !this.#ended &&
      this.subscriber.writable &&
      this.#classPrincipal === this.subscriber.principal
    )
  }

  /**
   * Numbers the stretches of being live. What the hub read in one may not be delivered in another: the subscription has
   * read for itself in between, perhaps something newer.
   */
  get liveStretch(): number {
    return this.#stretch
  }

  /** The cursor of a view that is complete, to be sent at once; null while it is not. */
  get cursor(): string | null {
    return this.isLive ? this.#give(this.#home.cursorText) : null
  }

  /** Opens the view: reads what is in it, then goes live. */
  start(): void {
    // What a resuming client says it holds counts like what it was sent.
    if (!this.#tooMany(this.#held.size)) this.#run = this.#loop()
  }

  /** Resolves when nothing of it is under way any more: what is read for it, even after its end, costs the database. */
  finished(): Promise<void> {
    return this.#run
  }

  /** Before the start: what the client says it holds cannot be built on. */
  forgetHeld(): void {
    this.#compare = 'membership'
    this.#held.clear()
    this.#tellHeld()
  }

  /**
   * Before the start: whether what the client holds was, by the seal on its cursor, all of this very view at that time.
   * Then only what changed since can be different, and nothing is compared.
   */
  trustHeld(cursor: ClientCursor): boolean {
    if (cursor.seal === '' || this.#sealed(formatCursor(cursor)) !== cursor.text) return false
    this.#compare = 'nothing'
    if (this.#bbox !== null) this.#watch([this.#bbox])
    return true
  }

  /** Before the start: a row changed while the client was away. `isNear`: it was or is in the box. */
  notePast(id: Id, isNear: boolean): void {
    if (isNear || this.#held.has(id)) this.#dirty.add(id)
  }

  /** These rows may be different now. */
  markDirty(ids: Iterable<Id>): void {
    if (this.#ended) return
    for (const id of ids) this.#dirty.add(id)
    if (this.#dirty.size > ROWS_PER_SUBSCRIPTION_MAX) this.markAllDirty()
    this.#catchUp()
  }

  /** Any row may be different now. */
  markAllDirty(): void {
    if (this.#ended) return
    this.#dirty.clear()
    this.#compare = 'everything'
    this.#catchUp()
  }

  /** Policies may answer differently now, for the same rows. */
  recheck(): void {
    if (this.#ended) return
    this.#generation++
    this.#class = classOf(this.subscriber.principal, this.#home.table)
    this.#classPrincipal = this.subscriber.principal
    this.#identity = undefined
    this.#needMembership()
  }

  /** The socket's principal was swapped. Costs nothing where the table's policies cannot tell the two apart. */
  principalChanged(): void {
    const next = classOf(this.subscriber.principal, this.#home.table)
    this.#classPrincipal = this.subscriber.principal
    if (next.key === this.#class.key) {
      this.#class = next
      return
    }
    this.recheck()
  }

  setBbox(bbox: Bbox, sequence: number): void {
    if (this.#ended) return
    this.#bbox = bbox
    this.#identity = undefined
    this.#requested = sequence
    this.#generation++
    this.#watch([...(this.#watched ?? []), bbox])
    this.#needMembership()
  }

  /** The socket takes frames again. */
  onDrain(): void {
    this.#onWritable?.()
    this.#catchUp()
  }

  /** Remembers a batch until its effect is in the view. */
  awaitBatch(batch: string, xid: bigint): void {
    if (this.#ended) return
    this.#unsettled.set(batch, xid)
    if (!this.reportSettled()) this.#home.awaitsBatch(this)
  }

  /** Tells the client of batches that the view has by now, if there are any. Whether it waits for none any more. */
  reportSettled(): boolean {
    if (this.#unsettled.size > 0 && this.isLive) {
      const settled = this.#takeSettled()
      if (settled.length > 0) this.#send({ cursor: this.#home.cursorText, settled })
    }
    return this.#unsettled.size === 0
  }

  /**
   * What the hub read for this subscription's class and area. Only for a live one whose class that still is. `cursor`:
   * where that brings the view, if it is all of it.
   */
  deliver(delivery: Delivery, cursor: string | undefined): void {
    const { present, presentHandles, absentHandles } = delivery
    const gone: Id[] = []
    for (const handle of absentHandles) {
      if (this.#held.deleteHandle(handle)) gone.push(this.#home.handles.idOf(handle))
    }
    if (present.length + gone.length === 0) return
    if (!delivery.isOneFrame || this.#unsettled.size > 0 || gone.length > 0)
      return this.#tell(present, gone, cursor)
    const before = this.#held.size
    for (const handle of presentHandles) this.#held.addHandle(handle)
    if (this.#held.size > before && this.#tooMany(this.#held.size)) return
    this.subscriber.send(delivery.frame(this.name, cursor === undefined ? undefined : this.#give(cursor)))
  }

  /** Ends the subscription with a code. Nothing is sent after it (invariant 8). */
  end(code: EndCode, message: string): void {
    if (this.#ended) return
    this.stop()
    this.subscriber.ended(this.name, code, message)
  }

  /** The socket is gone, and its client may come back: what it holds is parked, if its last cursor says what that is. */
  leave(): void {
    if (this.#given !== null && this.#held.size > 0 && !this.#ended) {
      const { cursor, sealed } = this.#given
      const isAsGiven = sealed !== cursor && sealed === this.#sealed(cursor)
      if (isAsGiven && this.#home.parked.park(sealed, this.#held))
        this.#held = new HeldSet(this.#home.handles)
    }
    this.stop()
  }

  /** Forgets everything, without a word to the client. */
  stop(): void {
    this.#ended = true
    this.#home.unregister(this)
    this.#held.clear()
    this.#tellHeld()
    this.#dirty.clear()
    this.#unsettled.clear()
    this.#onWritable?.()
  }

  #watch(boxes: readonly Bbox[]): void {
    // Boxes that move faster than they can be compared are watched as one: the whole globe.
    this.#watched = boxes.length > WATCHED_BOXES_MAX ? [GLOBE] : boxes
    this.#home.moved(this)
  }

  #needMembership(): void {
    if (this.#compare === 'nothing') this.#compare = 'membership'
    this.#catchUp()
  }

  /** Starts the loop unless it runs. Synchronously not live from here on, so the hub delivers nothing in between. */
  #catchUp(): void {
    if (this.#catchingUp || this.#ended) return
    this.#catchingUp = true
    this.#stretch++
    this.#run = this.#loop()
  }

  /** Never rejects. Returns with `#catchingUp` cleared by {@link #caughtUp}, or once the subscription has ended. */
  async #loop(): Promise<void> {
    while (!this.#ended) {
      try {
        if (!this.subscriber.writable) await this.#untilWritable()
        else if (this.#compare !== 'nothing') await this.#compareView()
        else if (this.#dirty.size > 0) await this.#readDirty()
        else return this.#caughtUp()
      } catch (error) {
        await this.#recover(error)
      }
    }
  }

  async #compareView(): Promise<void> {
    const compare = this.#compare
    const generation = this.#generation
    // Changes from here on are in what is read now, or come as dirty ids.
    this.#compare = 'nothing'
    try {
      if (this.#held.size === 0 && this.#completed < 0) await this.#streamView(generation)
      else await this.#compareIds(generation, compare)
    } catch (error) {
      this.#restoreCompare(compare)
      throw error
    }
    if (generation !== this.#generation) this.#restoreCompare(compare)
  }

  #restoreCompare(compare: Compare): void {
    if (this.#compare !== 'everything') this.#compare = compare
  }

  /** The first view, straight from one cursor. What a slow socket does not take in time is compared for later. */
  async #streamView(generation: number): Promise<void> {
    const giveUpAt = performance.now() + SNAPSHOT_MS_MAX
    await this.#home.reader.stream(this, this.#bbox, async (rows) => {
      const streamed = rows.flatMap(({ id, json }) => {
        if (json !== null) return [{ id, json }]
        this.#dirty.add(id)
        return []
      })
      for (const chunk of chunksOf(streamed, VIEW_FRAME_CHARACTERS)) {
        if (generation !== this.#generation || this.#ended) return false
        const leftMs = giveUpAt - performance.now()
        if (leftMs <= 0 || (!this.subscriber.writable && !(await this.#writableWithin(leftMs)))) {
          this.#restoreCompare('membership')
          return false
        }
        if (generation !== this.#generation || this.#ended || this.#tooLarge(chunk)) return false
        for (const { id } of chunk) this.#held.add(id)
        if (this.#tooMany(this.#held.size)) return false
        this.#send({ rows: chunk.map(({ json }) => json) })
      }
      return true
    })
  }

  async #compareIds(generation: number, compare: Compare): Promise<void> {
    const ids = await this.#home.reader.ids(this, this.#bbox)
    if (generation !== this.#generation || this.#ended || this.#tooMany(ids.length)) return
    const inView = new Set(ids)
    const gone = [...this.#held.ids()].filter((id) => !inView.has(id))
    for (const id of inView) if (compare === 'everything' || !this.#held.has(id)) this.#dirty.add(id)
    for (const id of gone) this.#held.delete(id)
    for (let from = 0; from < gone.length; from += GONE_IDS_MAX) {
      // They are no longer held, so they must all be told, but no faster than the socket takes them.
      if (!this.subscriber.writable) await this.#untilWritable()
      if (this.#ended) return
      this.#send({ gone: gone.slice(from, from + GONE_IDS_MAX) })
    }
  }

  async #readDirty(): Promise<void> {
    const generation = this.#generation
    const ids: Id[] = []
    const idsMax = this.#home.rowSize.rowsIn(READ_BYTES)
    for (const id of this.#dirty) {
      if (ids.length === idsMax) break
      ids.push(id)
      this.#dirty.delete(id)
    }
    let result: ClassResult
    try {
      result = await this.#home.reader.rows(this, ids)
    } catch (error) {
      for (const id of ids) this.#dirty.add(id)
      throw error
    }
    if (this.#ended) return
    if (generation !== this.#generation) {
      for (const id of ids) this.#dirty.add(id)
    } else if ('error' in result) {
      this.endBySqlState(result.error)
    } else {
      for (const id of result.unread) this.#dirty.add(id)
      const unread = new Set(result.unread)
      const present = result.rows.filter((row) => isInBox(row, this.#bbox))
      const inView = new Set(present.map(({ id }) => id))
      const gone = ids.filter((id) => !unread.has(id) && !inView.has(id) && this.#held.delete(id))
      this.#tell(present, gone, undefined)
    }
  }

  /** A read of this class failed with an SQLSTATE. */
  endBySqlState(sqlState: string): void {
    const { code, message } = endOf(sqlState)
    this.#endFinally(code, message)
  }

  #caughtUp(): void {
    this.#tellHeld()
    if (this.#bbox !== null && (this.#watched?.length !== 1 || this.#watched[0] !== this.#bbox)) {
      this.#watch([this.#bbox])
    }
    // Live before the frame goes out: the send may find the socket full, and then it is not.
    this.#catchingUp = false
    const complete = this.#completed < this.#requested ? this.#requested : undefined
    this.#completed = this.#requested
    this.#send({ cursor: this.#home.cursorText, complete, settled: this.#takeSettled() })
  }

  #endFinally(code: EndCode, message: string): void {
    this.end(code, message)
    // It may be the role that may not, which the operator is to be told of, and not a policy.
    if (code === 'forbidden') void this.#home.tableChanged()
  }

  async #recover(error: unknown): Promise<void> {
    if (error instanceof TableChanged) {
      this.#generation++
      return this.#home.tableChanged()
    }
    const code = errorCode(error)
    const end = endOf(code)
    // An SQLSTATE of the statement itself ends the subscription; anything else is the connection's trouble and passes.
    if (end.isFinal) return this.#endFinally(end.code, end.message)
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
  }

  /**
   * Tells the client about rows in view, and about those it held that are not. Stops where the socket takes no more; the
   * rest is dirty again, to be read when it does.
   */
  #tell(present: readonly ReadRow[], gone: readonly Id[], cursor: string | undefined): void {
    if (present.length + gone.length === 0 || this.#tooLarge(present)) return
    const chunks = [...chunksOf(present, VIEW_FRAME_CHARACTERS)]
    const last = chunks.pop() ?? []
    for (const [index, chunk] of chunks.entries()) {
      if (!this.#sendRows({ rows: chunk })) {
        if (gone.length > 0) this.#send({ gone })
        return this.markDirty([...chunks.slice(index + 1), last].flatMap((rest) => rest.map(({ id }) => id)))
      }
    }
    const settled = cursor === undefined ? [] : this.#takeSettled()
    this.#sendRows({ rows: last, gone, cursor, settled })
  }

  /** False if the socket takes no more after this. */
  #sendRows({ rows, ...parts }: { rows: readonly ReadRow[] } & Omit<ViewParts, 'sub' | 'rows'>): boolean {
    for (const { id } of rows) this.#held.add(id)
    if (this.#tooMany(this.#held.size)) return false
    this.#send({ rows: rows.map(({ json }) => json), ...parts })
    return this.subscriber.writable
  }

  #send(parts: Omit<ViewParts, 'sub'>): void {
    const cursor = parts.cursor === undefined ? undefined : this.#give(parts.cursor)
    this.subscriber.send(viewFrame({ ...parts, sub: this.name, cursor }))
  }

  /** A cursor for this client to come back with, which is about what it holds as this is sent. */
  #sealed(cursor: string): string {
    if (this.#identity === undefined) this.#identity = viewIdentity(this.#bbox, this.#class, this.#home.table)
    return this.#identity === null ? cursor : this.#home.seal.sealed(cursor, this.#identity, this.#held.hash)
  }

  /** The same, and remembers that it was given. */
  #give(cursor: string): string {
    this.#given = { cursor, sealed: this.#sealed(cursor) }
    return this.#given.sealed
  }

  #takeSettled(): string[] {
    const settled: string[] = []
    for (const [batch, xid] of this.#unsettled) {
      if (!isVisible(xid, this.#home.snapshot)) continue
      settled.push(batch)
      this.#unsettled.delete(batch)
    }
    return settled
  }

  #tooMany(count: number): boolean {
    this.#tellHeld()
    const problem = this.#tooManyProblem(count)
    if (problem !== null) this.end('too_many_rows', `${problem} Ask for a smaller box.`)
    return problem !== null
  }

  /** Why so many rows are too many; null if they are not. */
  #tooManyProblem(count: number): string | null {
    if (count > ROWS_PER_SUBSCRIPTION_MAX) return `More than ${ROWS_PER_SUBSCRIPTION_MAX} rows are in view.`
    const { heldCount } = this.#home
    const more = Math.max(0, count - this.#held.size)
    if (heldCount.tooManyOn(this.subscriber, more))
      return `More than ${ROWS_PER_SOCKET_MAX} rows are in the views of this socket.`
    // Views that open or move fill the process; one that is there and gets another row is not to blame.
    const isNew = this.#completed < this.#requested
    return isNew && heldCount.tooManyInAll(more) ? 'The server holds as many rows as it may.' : null
  }

  #tellHeld(): void {
    const by = this.#held.size - this.#heldTold
    if (by === 0) return
    this.#heldTold = this.#held.size
    this.#home.heldCount.changed(this.subscriber, by)
  }

  #tooLarge(rows: readonly { readonly json: string }[]): boolean {
    if (!rows.some(({ json }) => isLonger(json, ROW_BYTES_MAX))) return false
    this.end('row_too_large', `A row in view is larger than ${ROW_BYTES_MAX} bytes.`)
    return true
  }

  #untilWritable(): Promise<void> {
    return new Promise((resolve) => {
      this.#onWritable = () => {
        this.#onWritable = null
        resolve()
      }
    })
  }

  async #writableWithin(milliseconds: number): Promise<boolean> {
    let timer: ReturnType<typeof setTimeout> | undefined
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, milliseconds)
    })
    await Promise.race([this.#untilWritable(), patience])
    clearTimeout(timer)
    return this.subscriber.writable
  }
}
