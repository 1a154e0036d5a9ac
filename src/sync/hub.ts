/**
 * Joins the change feed to the subscriptions of every table. One hub per server process; sessions open subscriptions
 * here, and hub and sessions meet only through `Subscriber`.
 */

import type { TableConfig } from '../config/config.ts'
import { readTable, type Table } from '../db/catalog.ts'
import { type Cursor, formatCursor, parseCursor } from '../db/cursor.ts'
import type { Database } from '../db/database.ts'
import { errorCode } from '../db/error-code.ts'
import { type ChangeBatch, Feed, readChanges } from '../db/feed.ts'
import { watchProblem } from '../db/install.ts'
import { READ_CONNECTIONS } from '../db/postgres.ts'
import { installAgain } from '../db/prepare.ts'
import type { Log } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import { OperatorError } from '../operator-error.ts'
import type { Bbox, Id } from '../wire/messages.ts'
import { isNear } from './area-index.ts'
import { FairGate } from './fair-gate.ts'
import { HeldRows } from './held-rows.ts'
import type { Subscriber } from './subscriber.ts'
import { Subscription } from './subscription.ts'
import { TableHub, type Unserved } from './table-hub.ts'

/** How often a change of policies or columns is looked for that no read has run into. */
const FINGERPRINT_INTERVAL_MS = 5_000
/** Reads that one socket may have under way by itself; below what there is, so that others get on. */
const READS_PER_SOCKET_MAX = 2
const PRUNE_INTERVAL_MS = 60_000
/** How long a client may be away and still resume by cursor. */
const KEEP_CHANGES = '1 hour'
/** How long a batch may be sent again and still be recognised. */
const KEEP_BATCHES = '1 day'

export interface HubOptions {
  readonly database: Database
  readonly tables: readonly TableConfig[]
  /** Rows that all subscriptions may hold together; 0: no limit. */
  readonly heldRowsMax: number
  readonly log: Log
  readonly metrics: Metrics
}

export interface OpenOptions {
  readonly name: string
  readonly table: Table
  readonly bbox: Bbox | null
  readonly subscriber: Subscriber
  readonly resume: { readonly cursor: string; readonly held: readonly Id[] } | null
}

/** `refused`: the table cannot be served now. */
export type Opened =
  | { readonly subscription: Subscription; readonly table: Table; readonly resumed: boolean }
  | { readonly refused: Unserved }

export class Hub {
  readonly #options: HubOptions
  /** In the order of the configuration. */
  readonly #tables: readonly TableHub[]
  readonly #position: { cursorText: string; snapshot: string }
  readonly #heldRows: HeldRows
  readonly #timers: ReturnType<typeof setInterval>[] = []
  #feed: Feed | null = null
  #healthy = true

  private constructor(options: HubOptions, tables: readonly Table[]) {
    this.#options = options
    this.#position = { cursorText: '', snapshot: '1:1:' }
    this.#heldRows = new HeldRows(options.heldRowsMax)
    const gate = new FairGate(READ_CONNECTIONS, READS_PER_SOCKET_MAX)
    this.#tables = tables.map(
      (table) =>
        new TableHub({
          ...options,
          table,
          position: this.#position,
          gate,
          heldRows: this.#heldRows,
          readTable: () => readWatched(options.database, table),
        }),
    )
  }

  static async start(options: HubOptions): Promise<Hub> {
    const tables: Table[] = []
    for (const config of options.tables) tables.push(await readTable(options.database.sql, config))
    const hub = new Hub(options, tables)
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
    hub.#timers.push(setInterval(() => void hub.#checkFingerprints(), FINGERPRINT_INTERVAL_MS))
    hub.#timers.push(setInterval(() => void hub.#prune(), PRUNE_INTERVAL_MS))
    return hub
  }

  /** Whether Postgres answered when it was last asked. */
  get healthy(): boolean {
    return this.#healthy
  }

  get tables(): readonly Table[] {
    return this.#tables.map(({ table }) => table)
  }

  /** Rows that all subscriptions hold. */
  get heldRowCount(): number {
    return this.#heldRows.inAll
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
    const cursor = resume === null ? null : this.#usable(resume.cursor)
    const held = cursor === null || resume === null ? [] : resume.held
    const subscription = new Subscription({ name, bbox, subscriber, home, held })
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
    for (const timer of this.#timers) clearInterval(timer)
    await this.#feed?.stop()
  }

  #usable(text: string): Cursor | null {
    const cursor = parseCursor(text)
    if (cursor === null || this.#feed === null || cursor.epoch !== this.#feed.cursor.epoch) return null
    // A cursor from the future is none of ours.
    const [, xmax = '0'] = cursor.snapshot.split(':')
    const [, currentXmax = '0'] = this.#position.snapshot.split(':')
    return BigInt(xmax) > BigInt(currentXmax) + 1_000_000n ? null : cursor
  }

  /**
   * Marks what changed since the cursor. The subscription is registered, so what changes after this read comes by the
   * feed. False where the log cannot say any more: the client is told to start from nothing.
   */
  async #catchUpFrom(cursor: Cursor, subscription: Subscription, home: TableHub): Promise<boolean> {
    const batch = await readChanges(this.#options.database.bulk, cursor, [home.table.oid]).catch(() => null)
    if (batch === null || batch.everything || batch.changes.some(({ id }) => id === null)) {
      subscription.forgetHeld()
      return false
    }
    for (const change of batch.changes) {
      subscription.notePast(change.id as Id, isNear(change, subscription.bbox))
    }
    return true
  }

  async #onBatch({ changes, everything, cursor }: ChangeBatch): Promise<void> {
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
    this.#position.snapshot = cursor.snapshot
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

  async #prune(): Promise<void> {
    try {
      await this.#options.database
        .sql`select datum.prune(${KEEP_CHANGES}::interval, ${KEEP_BATCHES}::interval)`
    } catch (error) {
      this.#options.log.debug(`Pruning the change log failed (${errorCode(error)}).`)
    }
  }
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
