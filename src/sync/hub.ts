/**
 * Joins the change feed to the subscriptions of every table. One hub per server process; sessions open subscriptions
 * here, and hub and sessions meet only through `Subscriber`.
 */

import { subjectOf } from '../auth/principal.ts'
import type { TableConfig } from '../config/config.ts'
import { readTable, type Table } from '../db/catalog.ts'
import {
  type ClientCursor,
  type Cursor,
  formatCursor,
  parseCursor,
  type Snapshot,
  snapshotOf,
} from '../db/cursor.ts'
import type { Database } from '../db/database.ts'
import { errorCode } from '../db/error-code.ts'
import { type Change, type ChangeBatch, Feed, readChanges } from '../db/feed.ts'
import { watchProblem } from '../db/install.ts'
import { installAgain } from '../db/prepare.ts'
import { schemaFitness } from '../db/schema-version.ts'
import type { Log } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import { OperatorError } from '../operator-error.ts'
import type { Bbox, Id, SubscribeMessage } from '../wire/messages.ts'
import { isNear } from './area-index.ts'
import { ChangeHistory } from './change-history.ts'
import { HeldCount } from './held-count.ts'
import { HeldSet } from './held-set.ts'
import { ReadGates } from './read-gates.ts'
import type { Subscriber } from './subscriber.ts'
import { Subscription } from './subscription.ts'
import { TableHub, type Unserved } from './table-hub.ts'

/** How often a change of policies or columns is looked for that no read has run into. */
const FINGERPRINT_INTERVAL_MS = 5_000
const PRUNE_INTERVAL_MS = 60_000
/** Log rows dropped at a time, some ten milliseconds' work, and the pause until the next. */
const PRUNE_ROWS = 5_000
const PRUNE_PAUSE_MS = 20
/** How long a client may be away and still resume by cursor. */
const KEEP_CHANGES = '1 hour'
/** How long a resuming client waits for the feed. With Postgres away it is told to start anew, when that is back. */
const LOOK_MS_MAX = 2_000
/** How long a batch may be sent again and still be recognised. */
const KEEP_BATCHES = '1 day'

export interface HubOptions {
  readonly database: Database
  readonly tables: readonly TableConfig[]
  /** Rows that all subscriptions may hold together; 0: no limit. */
  readonly heldRowsMax: number
  readonly log: Log
  readonly metrics: Metrics
  /** Told when the schema `datum` was upgraded or removed, so that this server cannot go on. May be told again. */
  readonly onUnfit: (problem: string) => void
}

export interface OpenOptions {
  readonly name: string
  readonly table: Table
  readonly bbox: Bbox | null
  readonly subscriber: Subscriber
  readonly resume: NonNullable<SubscribeMessage['resume']> | null
}

/** `refused`: the table cannot be served now. */
export type Opened =
  | { readonly subscription: Subscription; readonly table: Table; readonly resumed: boolean }
  | { readonly refused: Unserved }

export class Hub {
  readonly #options: HubOptions
  /** In the order of the configuration. */
  readonly #tables: readonly TableHub[]
  readonly #position: { cursorText: string; snapshot: Snapshot }
  readonly #heldCount: HeldCount
  readonly #gates = new ReadGates()
  readonly #timers: ReturnType<typeof setInterval>[] = []
  #feed: Feed | null = null
  #history: ChangeHistory | null = null
  #healthy = true
  #isPruning = false
  #stopped = false

  private constructor(options: HubOptions, tables: readonly Table[], sealKey: string) {
    this.#options = options
    this.#position = { cursorText: '', snapshot: snapshotOf('1:1:') }
    this.#heldCount = new HeldCount(options.heldRowsMax)
    this.#tables = tables.map(
      (table) =>
        new TableHub({
          ...options,
          table,
          position: this.#position,
          sealKey,
          gates: this.#gates,
          heldCount: this.#heldCount,
          readTable: () => readWatched(options.database, table),
        }),
    )
  }

  static async start(options: HubOptions): Promise<Hub> {
    const tables: Table[] = []
    for (const config of options.tables) tables.push(await readTable(options.database.sql, config))
    const [meta] = await options.database.sql<{ seal_key: string }[]>`select seal_key from datum.meta`
    if (meta === undefined) throw new Error('datum.meta is empty')
    const hub = new Hub(options, tables, meta.seal_key)
    await options.database.reads.open()
    hub.#feed = await Feed.start({
      database: options.database,
      log: options.log,
      tables: () => hub.#tables.map(({ table }) => table.oid),
      onBatch: (batch) => hub.#onBatch(batch),
      onHealth: (healthy) => {
        hub.#healthy = healthy
      },
    })
    hub.#moveTo(hub.#feed.cursor)
    // Not earlier: what the cursor shows must be in what is read.
    await options.database.reads.reachNow()
    hub.#history = new ChangeHistory(hub.#feed.cursor)
    hub.#timers.push(
      setInterval(() => {
        void hub.#checkFingerprints()
        void hub.#checkSchema()
      }, FINGERPRINT_INTERVAL_MS),
    )
    hub.#timers.push(setInterval(() => void hub.#prune(), PRUNE_INTERVAL_MS))
    return hub
  }

  /** Whether Postgres answered when it was last asked. */
  get healthy(): boolean {
    return this.#healthy
  }

  /** Rows that all subscriptions hold. */
  get heldRowCount(): number {
    return this.#heldCount.inAll
  }

  get subscriptionCount(): number {
    return this.#tables.reduce((sum, { size }) => sum + size, 0)
  }

  /** The table by the name that clients use; the first one for no name; null for an unknown one. */
  tableNamed(name: string | undefined): Table | null {
    if (name === undefined) return this.#tables[0]?.table ?? null
    return (
      this.#tables.find(
        ({ table }) => table.wireName === name || `${table.config.schema}.${table.config.name}` === name,
      )?.table ?? null
    )
  }

  /**
   * Opens a subscription: registers it, so that no change from here on is missed, and decides whether what a resuming
   * client holds can stand. The caller tells the client, then calls `start`.
   */
  async open({ name, table, bbox, subscriber, resume }: OpenOptions): Promise<Opened> {
    const home = this.#tables.find((candidate) => candidate.table === table)
    if (home === undefined) throw new RangeError('the table is not one of this hub')
    // It may have been mended since.
    if (home.unserved !== null) await home.tableChanged()
    if (home.unserved !== null) return { refused: home.unserved }
    const cursor = resume == null ? null : this.#usable(resume.cursor)
    const held = heldBy(cursor, resume?.held, home)
    if (held === null) return { refused: HELD_NEEDED }
    const subscription = new Subscription({ name, bbox, subscriber, home, held })
    const isTrusted = cursor !== null && subscription.trustHeld(cursor)
    if (cursor !== null && resume?.held === undefined && !isTrusted) {
      subscription.stop()
      return { refused: HELD_NEEDED }
    }
    home.register(subscription)
    if (cursor === null) return { subscription, table: home.table, resumed: false }
    const resumed = await this.#catchUpFrom(cursor, subscription, home)
    return { subscription, table: home.table, resumed }
  }

  /** Says that a write of this server was committed, so that its effect is read at once. */
  ring(): void {
    this.#feed?.ring()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    for (const timer of this.#timers) clearInterval(timer)
    await this.#feed?.stop()
  }

  #usable(text: string): ClientCursor | null {
    const cursor = parseCursor(text)
    if (cursor === null || this.#feed === null || cursor.epoch !== this.#feed.cursor.epoch) return null
    // A cursor from the future is none of ours.
    const { xmax } = snapshotOf(cursor.snapshot)
    return xmax > this.#position.snapshot.xmax + 1_000_000n ? null : cursor
  }

  /**
   * Marks what changed since the cursor. The subscription is registered, so what changes after this read comes by the
   * feed. False where the log cannot say any more: the client is told to start from nothing.
   */
  async #catchUpFrom(cursor: ClientCursor, subscription: Subscription, home: TableHub): Promise<boolean> {
    // Nothing that was committed before the client asked may be missing from what it is told is complete.
    await Promise.race([this.#feed?.afterNextLook(), Bun.sleep(LOOK_MS_MAX)])
    const recent = this.#history?.after(cursor) ?? null
    const changes = recent ?? (await this.#changesAfter(cursor, subscription.subscriber, home.table))
    const own = changes?.filter(({ table }) => table === home.table.oid)
    if (own === undefined || own.some(({ id }) => id === null)) {
      subscription.forgetHeld()
      return false
    }
    for (const change of own) subscription.notePast(change.id as Id, isNear(change, subscription.bbox))
    return true
  }

  async #changesAfter(
    cursor: Cursor,
    subscriber: Subscriber,
    table: Table,
  ): Promise<readonly Change[] | null> {
    const user = subjectOf(subscriber.principal) ?? subscriber
    const isWanted = () => !subscriber.isClosed
    const batch = await this.#gates
      .readLog(user, isWanted, () => readChanges(this.#options.database.bulk, cursor, [table.oid]))
      .catch(() => null)
    return batch === null || batch.everything ? null : batch.changes
  }

  async #onBatch(batch: ChangeBatch): Promise<void> {
    const { changes, everything, cursor, wal } = batch
    // Whatever is read from here on is to show what the batch tells of, wherever it is read.
    this.#options.database.reads.reach(cursor.epoch, wal)
    // Before anything is read for it: who resumes meanwhile is not among those it is read for.
    this.#history?.add(batch)
    if (everything) {
      this.#moveTo(cursor)
      for (const table of this.#tables) table.markAllDirty()
      return
    }
    const deliveries = await Promise.all(
      this.#tables.map((home) => {
        const own = changes.filter(({ table }) => table === home.table.oid)
        return own.length === 0 ? null : home.prepare(own)
      }),
    )
    // From here to the end nothing awaits: no subscription can send the new cursor before it got what leads to it.
    this.#moveTo(cursor)
    for (const deliver of deliveries) deliver?.()
    for (const table of this.#tables) table.reportSettled()
  }

  #moveTo(cursor: Cursor): void {
    this.#position.cursorText = formatCursor(cursor)
    this.#position.snapshot = snapshotOf(cursor.snapshot)
  }

  async #checkFingerprints(): Promise<void> {
    for (const home of this.#tables) {
      if (home.size === 0 && home.unserved === null) continue
      try {
        const [row] = await this.#options.database.sql<{ fingerprint: string }[]>`
          select datum.fingerprint(${home.table.oid}) as fingerprint`
        if (row?.fingerprint !== home.table.fingerprint || home.unserved !== null) await home.tableChanged()
      } catch {
        // The feed notices and says when Postgres is away.
      }
    }
  }

  /** In small steps, with room for others in between: after a long absence there may be very much. */
  async #prune(): Promise<void> {
    for (const { parked } of this.#tables) parked.tidy()
    if (this.#isPruning) return
    this.#isPruning = true
    try {
      for (let hasMore = true; hasMore && !this.#stopped; ) {
        const [step] = await this.#options.database.bulk<{ more: boolean }[]>`
          select datum.prune(${KEEP_CHANGES}::interval, ${KEEP_BATCHES}::interval, ${PRUNE_ROWS}, true) as more`
        hasMore = step?.more === true
        if (hasMore) await new Promise((resolve) => setTimeout(resolve, PRUNE_PAUSE_MS))
      }
    } catch (error) {
      this.#options.log.debug(`Pruning the change log failed (${errorCode(error)}).`)
    } finally {
      this.#isPruning = false
    }
  }

  /** Whether what is installed is still what this server can work with. */
  async #checkSchema(): Promise<void> {
    try {
      const fitness = await schemaFitness(this.#options.database.sql)
      if (fitness.state === 'fit') return
      const remedy =
        fitness.state === 'newer'
          ? ''
          : ". Run `datum-server setup` as the tables' owner, then start this server again"
      this.#options.onUnfit(`${fitness.problem}${remedy}`)
    } catch {
      // The feed notices and says when Postgres is away.
    }
  }
}

/** Said to a client that named its cursor only, where this server does not know what it held, or not under these claims. */
const HELD_NEEDED: Unserved = {
  code: 'held_needed',
  message: 'This server does not know what you hold. Subscribe again, and list it.',
}

/** What a client holds that has come back, if with a cursor that means something; null: it has to say so. */
function heldBy(cursor: ClientCursor | null, ids: readonly Id[] | undefined, home: TableHub): HeldSet | null {
  const held = new HeldSet(home.handles)
  if (cursor === null) return held
  if (ids === undefined) return home.parked.copyOf(cursor.text)
  for (const id of ids) held.add(id)
  return held
}

/** Describes a table again, having made sure that its changes are logged: it may be a new one of the old name. */
async function readWatched(database: Database, before: Table): Promise<Table> {
  const table = await readTable(database.sql, before.config)
  const problem = await watchProblem(database.sql, {
    ...before.config,
    geometryColumn: table.geometry?.column.name ?? null,
  })
  if (problem !== null) {
    try {
      await installAgain(database, before.config)
    } catch {
      throw new OperatorError(`it ${problem}. Run \`datum-server setup\` again.`)
    }
    return readTable(database.sql, before.config)
  }
  // Disabled for a while, the triggers have logged nothing: every server, and who resumes, must compare.
  if (table.triggers !== before.triggers)
    await database.sql`select datum.refresh(${table.oid}::oid::regclass)`
  return table
}
