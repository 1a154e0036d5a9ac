/**
 * One table's subscriptions, and the step that turns a batch of changes into what each of them is told: who could care
 * (R-tree), one statement for all their classes, then row or `gone` for each. The hub (hub.ts) feeds it.
 */
import { type ClaimSettings, type ClassResult, readForClasses } from '../db/as-principal.ts'
import { type Table, TableForbidden } from '../db/catalog.ts'
import type { Database } from '../db/database.ts'
import { errorCode, isUnavailable } from '../db/error-code.ts'
import type { Change } from '../db/feed.ts'
import type { Log } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { EndCode, Id } from '../wire/messages.ts'
import { AreaIndex } from './area-index.ts'
import type { FairGate } from './fair-gate.ts'
import { rowsByIdSql } from './read-sql.ts'
import { RowSize } from './row-size.ts'
import type { Subscription, SubscriptionHome, ViewReader } from './subscription.ts'
import { createViewReader } from './view-reader.ts'

/** What one shared read should bring, over all of its classes. */
const SHARED_READ_CHARACTERS = 4 * 1024 * 1024

/**
 * How long a shared read may take. Then one of its classes may have a policy that does not end, and each subscription
 * reads for itself, with a limit of its own, so that only that class's pay for it.
 */
const SHARED_READ_TIMEOUT_MS = 2_000

/** Where the feed is: shared by all tables of a hub. */
export interface FeedPosition {
  readonly cursorText: string
  readonly snapshot: string
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
  /** For the reads of single subscriptions. */
  readonly gate: FairGate
  /** Reads the table's description again. */
  readonly readTable: () => Promise<Table>
  readonly log: Log
  readonly metrics: Metrics
}

/** Subscriptions of one class that a batch concerns, with the ids that concern each. */
interface ClassInterest {
  readonly key: string
  readonly settings: ClaimSettings
  readonly ids: Set<Id>
  readonly subscriptions: Map<Subscription, Interest>
}

/** A part of what a batch asks for one class. */
interface ClassRun {
  readonly interest: ClassInterest
  readonly ids: readonly Id[]
}

/** Hands out what was read; `cursor` only with the last of a batch. */
type Delivery = (cursor: string | undefined) => void

/** What a batch means for one live subscription. */
interface Interest {
  readonly ids: Set<Id>
  /** The stretch of being live in which it was read for. */
  readonly stretch: number
}

export class TableHub implements SubscriptionHome {
  readonly #options: TableHubOptions
  readonly rowSize = new RowSize()
  readonly #subscriptions = new AreaIndex<Subscription>()
  #table: Table
  #reader: ViewReader
  #reload: Promise<void> | null = null
  #unserved: Unserved | null = null

  constructor(options: TableHubOptions) {
    this.#options = options
    this.#table = options.table
    this.#reader = createViewReader(options.database, options.gate, options.table, this.rowSize)
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

  get snapshot(): string {
    return this.#options.position.snapshot
  }

  get size(): number {
    return this.#subscriptions.size
  }

  /** Why it cannot be served as it is: gone, not readable, or its changes are not logged. Null: it can. */
  get unserved(): Unserved | null {
    return this.#unserved
  }

  register(subscription: Subscription): void {
    this.#subscriptions.set(subscription, subscription.watched)
  }

  unregister(subscription: Subscription): void {
    this.#subscriptions.delete(subscription)
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
    const interests = this.#interestIn(changes)
    let deliver: Delivery = () => {}
    for (const run of this.#runsOf(interests)) {
      deliver(undefined)
      deliver = await this.#read(run)
    }
    return () => deliver(this.cursorText)
  }

  /** Cuts what a batch asks into statements whose answers fit into memory. */
  *#runsOf(interests: readonly ClassInterest[]): Generator<readonly ClassRun[]> {
    let run: ClassRun[] = []
    let left = this.rowSize.rowsIn(SHARED_READ_CHARACTERS)
    for (const interest of interests) {
      const ids = [...interest.ids]
      for (let start = 0; start < ids.length; ) {
        const taken = ids.slice(start, start + left)
        run.push({ interest, ids: taken })
        start += taken.length
        left -= taken.length
        if (left > 0) continue
        yield run
        run = []
        left = this.rowSize.rowsIn(SHARED_READ_CHARACTERS)
      }
    }
    if (run.length > 0) yield run
  }

  /** One statement for a run of classes. Resolves to its handing out; never rejects. */
  async #read(run: readonly ClassRun[]): Promise<Delivery> {
    const table = this.#table
    try {
      const { results, fingerprint } = await readForClasses(
        this.#options.database.sql,
        run.map(({ interest, ids }) => ({ settings: interest.settings, ids })),
        rowsByIdSql(table),
        table.oid,
        {
          timeoutMs: this.#options.database.kind === 'embedded' ? null : SHARED_READ_TIMEOUT_MS,
          lengthMax: SHARED_READ_CHARACTERS / run.length,
        },
      )
      this.#options.metrics.classReads(run.length)
      if (fingerprint === table.fingerprint && table === this.#table) {
        return (cursor) => {
          for (const [index, part] of run.entries()) this.#deliver(part, results[index], cursor)
        }
      }
      void this.tableChanged()
    } catch (error) {
      // One class's trouble never comes here (the statement isolates it), so this is everybody's: a lost connection, a
      // timeout. Each subscription reads for itself and finds out what it is about.
      this.#options.log.debug(`A shared read of ${table.wireName} failed (${errorCode(error)}).`)
    }
    return () => {
      for (const part of run) this.#deliver(part, undefined, undefined)
    }
  }

  /** Tells each live subscription which of its socket's batches its view has by now. */
  reportSettled(): void {
    for (const subscription of this.#subscriptions.owners) subscription.reportSettled()
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
    this.#reader = createViewReader(this.#options.database, this.#options.gate, table, this.rowSize)
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

  /** Live subscriptions by class; the others just get the ids. */
  #interestIn(changes: readonly Change[]): ClassInterest[] {
    const classes = new Map<string, ClassInterest>()
    const outstanding = new Map<Subscription, Set<Id>>()
    for (const change of changes) {
      const id = change.id as Id
      for (const subscription of this.#subscriptions.touchedBy(change)) {
        if (!subscription.isLive) {
          const ids = outstanding.get(subscription)
          if (ids !== undefined) ids.add(id)
          else outstanding.set(subscription, new Set([id]))
          continue
        }
        const { key, settings } = subscription.class
        let interest = classes.get(key)
        if (interest === undefined) {
          interest = { key, settings, ids: new Set(), subscriptions: new Map() }
          classes.set(key, interest)
        }
        interest.ids.add(id)
        const own = interest.subscriptions.get(subscription)
        if (own !== undefined) own.ids.add(id)
        else
          interest.subscriptions.set(subscription, { ids: new Set([id]), stretch: subscription.liveStretch })
      }
    }
    for (const [subscription, ids] of outstanding) subscription.markDirty(ids)
    return [...classes.values()]
  }

  /** No result: the read failed, and each subscription reads for itself. */
  #deliver({ interest, ids }: ClassRun, result: ClassResult | undefined, cursor: string | undefined): void {
    const rows = result !== undefined && 'rows' in result ? result.rows : null
    const unread = new Set(result !== undefined && 'rows' in result ? result.unread : [])
    if (rows !== null) this.rowSize.saw(rows)
    const byId = new Map(rows?.map((row) => [row.id, row]))
    for (const [subscription, { ids: wanted, stretch }] of interest.subscriptions) {
      const own = ids.filter((id) => wanted.has(id))
      if (own.length === 0) continue
      // Its claims, its box or its socket may have changed while the database was reading.
      const isAsRead =
        subscription.isLive && subscription.liveStretch === stretch && subscription.class.key === interest.key
      if (isAsRead && rows !== null) {
        const left = own.filter((id) => unread.has(id))
        const read = left.length === 0 ? own : own.filter((id) => !unread.has(id))
        subscription.deliver(read, byId, left.length === 0 ? cursor : undefined)
        if (left.length > 0) subscription.markDirty(left)
      } else if (
        isAsRead &&
        result !== undefined &&
        'error' in result &&
        !isUnavailable({ code: result.error })
      )
        subscription.endBySqlState(result.error)
      else subscription.markDirty(own)
    }
  }
}
