/**
 * One table's subscriptions, and the step that turns a batch of changes into what each of them is told: who could care
 * (R-tree), one statement for all their classes, then row or `gone` for each. The hub (hub.ts) feeds it.
 */
import { type ClassRead, type ClassResult, type ReadRow, readForClasses } from '../db/as-principal.ts'
import { type Table, TableForbidden } from '../db/catalog.ts'
import type { Snapshot } from '../db/cursor.ts'
import type { Database } from '../db/database.ts'
import { errorCode, isUnavailable, QUERY_CANCELLED } from '../db/error-code.ts'
import type { Change } from '../db/feed.ts'
import { insistOn } from '../db/reads.ts'
import type { Log } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { EndCode, Id } from '../wire/messages.ts'
import { type Area, AreaIndex } from './area-index.ts'
import { Delivery } from './delivery.ts'
import type { HeldCount } from './held-count.ts'
import { type ChangedRows, changedRows, interestIn, releaseRows } from './interest.ts'
import { JointReads } from './joint-reads.ts'
import { ParkedViews } from './parked-views.ts'
import type { ReadGates } from './read-gates.ts'
import { RowHandles } from './row-handles.ts'
import { RowSize } from './row-size.ts'
import { type ClassPart, runsOf } from './shared-read.ts'
import { SlowClasses } from './slow-classes.ts'
import type { Subscription } from './subscription.ts'
import type { SubscriptionHome, ViewReader } from './subscription-home.ts'
import { isInBox } from './view-box.ts'
import { createViewReader } from './view-reader.ts'
import { ViewSeal } from './view-seal.ts'

/** What one shared read should bring, over all of its classes. */
const SHARED_READ_CHARACTERS = 4 * 1024 * 1024
/** What each class may bring however many there are: most see a few rows of a batch, and none should have to ask twice. */
const CLASS_READ_CHARACTERS_MIN = 64 * 1024

/** How long a shared read may take. Then one of its classes may have a policy that does not end. */
const SHARED_READ_TIMEOUT_MS = 2_000
/**
 * How long each class may take then, read by itself. Most take a millisecond; those that do not are left out of shared
 * reads from then on, and their subscriptions read for themselves.
 */
const LONE_READ_TIMEOUT_MS = 100
/** After so many that were slow it is not about one class, but about the table: all read for themselves. */
const LONE_READS_SLOW_MAX = 20

/** Where the feed is: shared by all tables of a hub. */
export interface FeedPosition {
  readonly cursorText: string
  readonly snapshot: Snapshot
}

/** What subscriptions are told of a table that cannot be served. */
export interface Unserved {
  readonly code: EndCode
  readonly message: string
}

export interface TableHubOptions {
  readonly database: Database
  readonly table: Table
  readonly position: FeedPosition
  /** What this database's cursors are sealed with. */
  readonly sealKey: string
  readonly heldCount: HeldCount
  /** For the reads of single subscriptions. */
  readonly gates: ReadGates
  /** Reads the table's description again. */
  readonly readTable: () => Promise<Table>
  readonly log: Log
  readonly metrics: Metrics
}

/** Hands out what was read; `cursorText` only with the last of a batch. */
type HandOut = (cursorText: string | undefined) => void

export class TableHub implements SubscriptionHome<Subscription> {
  readonly #options: TableHubOptions
  readonly rowSize = new RowSize()
  readonly #slowClasses = new SlowClasses()
  readonly handles: RowHandles
  readonly seal: ViewSeal
  readonly parked = new ParkedViews()
  readonly #subscriptions = new AreaIndex<Subscription>()
  /** Those that wait for the effect of batches of their sockets. */
  readonly #unsettled = new Set<Subscription>()
  #table: Table
  #reader: ViewReader
  #reload: Promise<void> | null = null
  #unserved: Unserved | null = null

  constructor(options: TableHubOptions) {
    this.#options = options
    this.handles = new RowHandles(options.sealKey)
    this.seal = new ViewSeal(options.sealKey)
    this.#table = options.table
    this.#reader = this.#createReader()
  }

  get table(): Table {
    return this.#table
  }

  get reader(): ViewReader {
    return this.#reader
  }

  get cursorText(): string {
    return this.#options.position.cursorText
  }

  get heldCount(): HeldCount {
    return this.#options.heldCount
  }

  get snapshot(): Snapshot {
    return this.#options.position.snapshot
  }

  get size(): number {
    return this.#subscriptions.size
  }

  /** Why it cannot be served as it is: gone, not readable, or its changes are not logged. Null: it can. */
  get unserved(): Unserved | null {
    return this.#unserved
  }

  #createReader(): ViewReader {
    const { database, gates } = this.#options
    const slowClasses = this.#slowClasses
    const alone = createViewReader({
      database,
      gates,
      table: this.#table,
      rowSize: this.rowSize,
      slowClasses,
    })
    const joint = new JointReads({
      readTogether: async (classes) => {
        const results = await this.#readTogether(classes)
        return results === 'too slow' ? null : results
      },
      readAlone: alone.rows,
      isSlow: (key) => slowClasses.has(key),
      rowsMax: () => this.rowSize.rowsIn(SHARED_READ_CHARACTERS),
    })
    return { ...alone, rows: joint.rows }
  }

  register(subscription: Subscription): void {
    this.#subscriptions.set(subscription, subscription.watched)
  }

  unregister(subscription: Subscription): void {
    this.#subscriptions.delete(subscription)
    this.#unsettled.delete(subscription)
  }

  awaitsBatch(subscription: Subscription): void {
    this.#unsettled.add(subscription)
  }

  moved(subscription: Subscription): void {
    this.#subscriptions.set(subscription, subscription.watched)
  }

  /** Any row of the table may be different now. */
  markAllDirty(): void {
    for (const subscription of [...this.#subscriptions.owners]) subscription.markAllDirty()
  }

  /**
   * First half of a batch: reads for the classes that it concerns and hands out all but the last of it. Resolves to the
   * second half, the last handing out: between the two the caller moves the feed's position, so that no frame carries
   * a cursor too early. Never rejects.
   */
  async prepare(changes: readonly Change[]): Promise<() => void> {
    if (changes.some(({ id }) => id === null)) {
      this.markAllDirty()
      return () => {}
    }
    const batch = changedRows(changes, this.handles)
    const interests = interestIn(batch, this.#subscriptions, (key) => this.#slowClasses.has(key))
    let handOut: HandOut = () => {}
    for (const run of runsOf(interests, batch.ids, this.rowSize.rowsIn(SHARED_READ_CHARACTERS))) {
      handOut(undefined)
      handOut = await this.#read(run, batch)
    }
    return () => {
      handOut(this.cursorText)
      releaseRows(batch, this.handles)
    }
  }

  /** One statement for a run of classes. Resolves to its handing out; never rejects. */
  async #read(run: readonly ClassPart[], batch: ChangedRows): Promise<HandOut> {
    const classes = run.map(({ interest, ids }) => ({ settings: interest.settings, ids }))
    const results = await this.#readTogether(classes)
    if (results === 'too slow') {
      await this.#readApart(run, batch)
      return () => {}
    }
    return (cursor) => {
      for (const [index, part] of run.entries())
        this.#deliver(part, results?.[index], batch, results === null ? undefined : cursor)
    }
  }

  /** The results of one statement for these classes; null if they are of no use. Never rejects. */
  async #readTogether(
    classes: readonly ClassRead[],
    timeoutMs = SHARED_READ_TIMEOUT_MS,
  ): Promise<readonly ClassResult[] | 'too slow' | null> {
    const { database, metrics, log } = this.#options
    const table = this.#table
    try {
      const { results, fingerprint } = await database.reads.run(async (source) => {
        const answer = await readForClasses(source.sql, table, classes, {
          timeoutMs: database.kind === 'embedded' ? null : timeoutMs,
          lengthMax: Math.max(SHARED_READ_CHARACTERS / classes.length, CLASS_READ_CHARACTERS_MIN),
          proof: source.proof,
        })
        insistOn(source, answer, table)
        return answer
      })
      metrics.classReads(classes.length)
      for (const result of results) if ('rows' in result) this.rowSize.saw(result.rows)
      if (fingerprint === table.fingerprint && table === this.#table) return results
      void this.tableChanged()
    } catch (error) {
      const code = errorCode(error)
      // One class's trouble never comes here (the statement isolates it), but for what cannot be caught: a cancellation,
      // a lost connection. Each subscription reads for itself then and finds out what it is about.
      log.debug(`A shared read of ${table.wireName} failed (${code}).`)
      if (code === QUERY_CANCELLED) return 'too slow'
    }
    return null
  }

  /**
   * A shared read took too long: reads for one class after the other, and hands out at once what was quick. Those that
   * are slow again are remembered, so that nobody waits for them a second time.
   */
  async #readApart(run: readonly ClassPart[], batch: ChangedRows): Promise<void> {
    let slow = 0
    for (const part of run) {
      const { key, settings } = part.interest
      const isHopeless = slow >= LONE_READS_SLOW_MAX || this.#slowClasses.has(key)
      const results = isHopeless
        ? null
        : await this.#readTogether([{ settings, ids: part.ids }], LONE_READ_TIMEOUT_MS)
      if (results === 'too slow') {
        slow++
        this.#slowClasses.note(key)
      }
      this.#deliver(part, results === 'too slow' ? undefined : results?.[0], batch, undefined)
    }
  }

  /** Tells the subscriptions that wait for it which of their sockets' batches their views have by now. */
  reportSettled(): void {
    for (const subscription of this.#unsettled) {
      if (subscription.reportSettled()) this.#unsettled.delete(subscription)
    }
  }

  /** Single-flight. Never rejects: without an answer the subscriptions ask again. */
  tableChanged(): Promise<void> {
    this.#reload ??= this.#readAgain().finally(() => {
      this.#reload = null
    })
    return this.#reload
  }

  async #readAgain(): Promise<void> {
    let table: Table
    try {
      table = await this.#options.readTable()
    } catch (error) {
      if (errorCode(error) !== 'OperatorError') return new Promise((resolve) => setTimeout(resolve, 500))
      return this.#endUnserved(error as Error)
    }
    const before = this.#table
    const wasUnserved = this.#unserved !== null
    this.#unserved = null
    if (table.fingerprint === before.fingerprint && table.rowSecurity === before.rowSecurity && !wasUnserved)
      return
    this.#options.log.info(`${table.wireName} was altered; its subscriptions are compared with it again.`)
    this.#table = table
    this.#reader = this.#createReader()
    if (table.oid !== before.oid || JSON.stringify(table.info) !== JSON.stringify(before.info)) {
      return this.#endAll('schema_changed', 'The columns of this table changed. Subscribe again.')
    }
    for (const subscription of [...this.#subscriptions.owners]) {
      subscription.recheck()
      if (table.triggers !== before.triggers) subscription.markAllDirty()
    }
  }

  #endUnserved(why: Error): void {
    if (this.#unserved === null)
      this.#options.log.error(`${this.#table.wireName} cannot be served any more: ${why.message}`)
    this.#unserved =
      why instanceof TableForbidden
        ? { code: 'forbidden', message: 'The database role may not read this table.' }
        : { code: 'error', message: 'This table is not served at the moment.' }
    this.#endAll(this.#unserved.code, this.#unserved.message)
  }

  #endAll(code: EndCode, message: string): void {
    for (const subscription of [...this.#subscriptions.owners]) subscription.end(code, message)
  }

  /** No result: the read failed, and each subscription reads for itself. */
  #deliver(
    { interest, rows: asked }: ClassPart,
    result: ClassResult | undefined,
    batch: ChangedRows,
    cursor: string | undefined,
  ): void {
    const read = result !== undefined && 'rows' in result ? result : null
    // What only asks for another try (a lock that was not given up, a deadlock) is read again by each.
    const failure =
      result !== undefined && 'error' in result && !isUnavailable({ code: result.error })
        ? result.error
        : null
    const visible = new Map<number, ReadRow>()
    for (const row of read?.rows ?? []) visible.set(batch.places.get(row.id)!, row)
    const unread = new Set(read?.unread.map((id) => batch.places.get(id)!))
    // Of a class that was cut in two, each part is about the rows that it asked for.
    const isAsked = interest.areas.every(({ rows }) => rows === asked) ? null : new Set(asked)
    for (const { area, rows, members } of interest.areas) {
      const own = isAsked === null ? rows : rows.filter((place) => isAsked.has(place))
      if (own.length === 0) continue
      const left = unread.size === 0 ? [] : own.filter((place) => unread.has(place))
      const delivery =
        read === null
          ? null
          : deliveryOf(
              left.length === 0 ? own : own.filter((place) => !unread.has(place)),
              area,
              visible,
              batch,
            )
      for (const { subscription, stretch } of members) {
        // Its claims, its box or its socket may have changed while the database was reading.
        const isAsRead =
          subscription.isLive &&
          subscription.liveStretch === stretch &&
          subscription.class.key === interest.key
        if (isAsRead && delivery !== null) {
          subscription.deliver(delivery, left.length === 0 ? cursor : undefined)
          if (left.length > 0) subscription.markDirty(idsAt(left, batch))
        } else if (isAsRead && failure !== null) subscription.endBySqlState(failure)
        else subscription.markDirty(idsAt(own, batch))
      }
    }
  }
}

/** Who is live watches just its box, and everybody of an area has the same one. */
function deliveryOf(
  rows: readonly number[],
  { boxes }: Area<Subscription>,
  visible: ReadonlyMap<number, ReadRow>,
  { handles }: ChangedRows,
): Delivery {
  const present: ReadRow[] = []
  const presentHandles: number[] = []
  const absentHandles: number[] = []
  for (const place of rows) {
    const row = visible.get(place)
    if (row !== undefined && (boxes === null || boxes.some((box) => isInBox(row, box)))) {
      present.push(row)
      presentHandles.push(handles[place]!)
    } else absentHandles.push(handles[place]!)
  }
  return new Delivery(present, presentHandles, absentHandles)
}

function idsAt(places: readonly number[], { ids }: ChangedRows): Id[] {
  return places.map((place) => ids[place]!)
}
