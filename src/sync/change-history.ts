/**
 * What the feed has brought of late, so that a client that was away for a moment is told what it missed without asking
 * the database. Exact or nothing: where the history does not reach back far enough, the log in Postgres is read.
 */
import { type Cursor, isVisible, type Snapshot, snapshotOf } from '../db/cursor.ts'
import type { Change, ChangeBatch } from '../db/feed.ts'

/** Changes that are kept, about 200 bytes each. */
const CHANGES_MAX = 100_000

interface Kept {
  readonly changes: readonly Change[]
  /** Where the feed was once it had these. */
  readonly snapshot: string
}

export class ChangeHistory {
  #epoch: string
  /** Whatever is not visible in this snapshot, and is in that of now, is kept. */
  #since: Snapshot
  #kept: Kept[] = []
  #count = 0
  /** The last answer, since those that one outage cut off mostly come back with one cursor. */
  #answer: { readonly cursor: Cursor; readonly changes: readonly Change[] } | null = null

  constructor(cursor: Cursor) {
    this.#epoch = cursor.epoch
    this.#since = snapshotOf(cursor.snapshot)
  }

  add({ changes, everything, cursor }: ChangeBatch): void {
    if (everything || cursor.epoch !== this.#epoch) {
      this.#epoch = cursor.epoch
      this.#since = snapshotOf(cursor.snapshot)
      this.#kept = []
      this.#count = 0
      this.#answer = null
      return
    }
    if (changes.length === 0) return
    this.#answer = null
    this.#kept.push({ changes, snapshot: cursor.snapshot })
    this.#count += changes.length
    while (this.#count > CHANGES_MAX) {
      const dropped = this.#kept.shift()
      if (dropped === undefined) return
      this.#count -= dropped.changes.length
      this.#since = snapshotOf(dropped.snapshot)
    }
  }

  /** Every change of now that the cursor does not reflect; null if that cannot be told from here. */
  after(cursor: Cursor): readonly Change[] | null {
    if (cursor.epoch !== this.#epoch) return null
    const before = this.#answer
    if (before?.cursor.snapshot === cursor.snapshot) return before.changes
    const snapshot = snapshotOf(cursor.snapshot)
    if (!reflectsAllOf(snapshot, this.#since)) return null
    const changes = this.#kept.flatMap((kept) => kept.changes.filter(({ xid }) => !isVisible(xid, snapshot)))
    this.#answer = { cursor, changes }
    return changes
  }
}

/** Whether everything that `earlier` shows, `later` shows too. */
function reflectsAllOf(later: Snapshot, earlier: Snapshot): boolean {
  // What `later` does not show: from its xmax on, and what was running.
  if (later.xmax < earlier.xmax) return false
  return [...later.running].every((xid) => xid >= earlier.xmax || earlier.running.has(xid))
}
