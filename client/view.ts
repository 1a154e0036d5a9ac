/**
 * The rows that the application sees: what the server sent (the base) with the application's own edits laid over it.
 * `subscription.ts` brings the first, `write-queue.ts` the second. Every method that changes something only marks the
 * rows it touched; `commit` works out what really changed and tells it once.
 */
import type { Id, Row, TableInfo } from '../src/wire/messages.ts'
import { sameJson } from './json.ts'
import { Listeners } from './listeners.ts'
import { applyEdits, type LocalEdit, withColumn } from './local-edit.ts'
import { idOfRow, idValue } from './row-id.ts'

interface ViewChange {
  /** Rows that are new or different, as they are now. */
  upserts: Row[]
  /** Ids of rows that are no longer there. */
  gone: Id[]
}

/** `settled` may overtake `outcome`; the queue has one batch under way, so a few are plenty. */
const EARLY_SETTLED_MAX = 16

export class View {
  /** The view with edits applied. The same map for the life of the client; a changed row is another object. */
  readonly rows = new Map<Id, Row>()
  readonly changes = new Listeners<ViewChange>()
  #table: TableInfo | null = null
  #base = new Map<Id, Row>()
  /** A view that starts from nothing is collected here, so that the old rows stay until it can take their place. */
  #incoming: Map<Id, Row> | null = null
  readonly #edits = new Map<Id, LocalEdit[]>()
  readonly #touched = new Set<Id>()
  /** The view is complete and nothing was there before: all of it is news, and there is nothing to compare it with. */
  #isFirst = false
  readonly #settledEarly = new Set<string>()

  /** The ids of the server's rows here, for `resume`. */
  heldIds(): Id[] {
    return [...this.#base.keys()]
  }

  /** A subscription has opened: its rows come on top of those that are here, or from nothing. */
  begin(table: TableInfo, fresh: boolean): void {
    this.#table = table
    this.#incoming = fresh ? new Map() : null
    // What the server has applied by now is in the view that it is about to send, and it will not be told again.
    for (const edit of this.#confirmed()) edit.inNextView = true
  }

  apply(rows: readonly Row[], gone: readonly Id[]): void {
    const { idColumn } = this.#table!
    const target = this.#incoming ?? this.#base
    for (const row of rows) {
      const id = idOfRow(row, idColumn)
      target.set(id, row)
      if (target === this.#base) this.#touched.add(id)
    }
    for (const id of gone) {
      target.delete(id)
      if (target === this.#base) this.#touched.add(id)
    }
  }

  /** The view is the whole truth for the first time since `begin`. */
  complete(): void {
    if (this.#incoming !== null) {
      for (const id of this.#base.keys()) this.#touched.add(id)
      this.#base = this.#incoming
      this.#incoming = null
      this.#isFirst = this.rows.size === 0 && this.#edits.size === 0 && this.#touched.size === 0
      if (!this.#isFirst) for (const id of this.#base.keys()) this.#touched.add(id)
    }
    for (const edit of this.#confirmed()) if (edit.inNextView) this.remove(edit)
  }

  /** The effect of these batches is in the rows that were applied. */
  settle(batches: readonly string[]): void {
    const settled = new Set(batches)
    for (const batch of batches) this.#settledEarly.add(batch)
    for (const edit of this.#confirmed()) {
      if (!settled.has(edit.batch!)) continue
      if (this.#incoming === null) this.remove(edit)
      else edit.inNextView = true
    }
    for (const batch of this.#settledEarly) {
      if (this.#settledEarly.size <= EARLY_SETTLED_MAX) break
      this.#settledEarly.delete(batch)
    }
  }

  /** The subscription is over and its rows are not for this client any more. */
  clear(): void {
    for (const id of this.rows.keys()) this.#touched.add(id)
    this.#base.clear()
    this.#incoming = null
    for (const edit of this.#confirmed()) this.remove(edit)
  }

  /** Lays an edit over its row. */
  add(edit: LocalEdit): void {
    const stack = this.#edits.get(edit.key)
    if (stack === undefined) this.#edits.set(edit.key, [edit])
    else stack.push(edit)
    this.#touched.add(edit.key)
  }

  /** Takes an edit off its row: it was refused, or the base has it. */
  remove(edit: LocalEdit): void {
    const stack = this.#edits.get(edit.key)?.filter((other) => other !== edit) ?? []
    if (stack.length === 0) this.#edits.delete(edit.key)
    else this.#edits.set(edit.key, stack)
    this.#touched.add(edit.key)
  }

  /** The server has applied the edit. It stays until the view shows it: see `settle`, `begin`. */
  confirm(edit: LocalEdit, batch: string): void {
    edit.batch = batch
    if (this.#settledEarly.has(batch)) {
      if (this.#incoming === null) this.remove(edit)
      else edit.inNextView = true
    }
  }

  /** The server has given the row behind a local key its id. */
  rekey(key: Id, id: Id): void {
    const moved = this.#edits.get(key) ?? []
    for (const edit of moved) {
      edit.key = id
      if (edit.op === 'insert')
        edit.columns = withColumn(edit.columns, this.#table!.idColumn, idValue(id, this.#table!))
    }
    this.#edits.delete(key)
    this.#edits.set(id, [...moved, ...(this.#edits.get(id) ?? [])])
    this.#touched.add(key).add(id)
  }

  /** Brings `rows` up to date and tells what changed, if anything did. */
  commit(): void {
    const change: ViewChange = { upserts: [], gone: [] }
    if (this.#isFirst) {
      this.#isFirst = false
      for (const [id, row] of this.#base) {
        if (this.#touched.has(id)) continue
        this.rows.set(id, row)
        change.upserts.push(row)
      }
    }
    for (const id of this.#touched) {
      const before = this.rows.get(id)
      const edits = this.#edits.size === 0 ? undefined : this.#edits.get(id)
      const base = this.#base.get(id)
      const row = edits === undefined ? base : applyEdits(base, edits)
      if (row === undefined) {
        if (this.rows.delete(id)) change.gone.push(id)
      } else if (!sameJson(before, row)) {
        this.rows.set(id, row)
        change.upserts.push(row)
      }
    }
    this.#touched.clear()
    if (change.upserts.length > 0 || change.gone.length > 0) this.changes.emit(change)
  }

  #confirmed(): LocalEdit[] {
    return [...this.#edits.values()].flat().filter(({ batch }) => batch !== null)
  }
}
