/**
 * A cursor is a Postgres snapshot (`pg_current_snapshot()` as text: `xmin:xmax:xip,…`, Postgres §9.27) with the epoch of
 * the database it came from. It says exactly which transactions a view reflects, whatever order they committed in.
 */

export interface Cursor {
  readonly epoch: string
  readonly snapshot: string
}

/** A cursor as a client gives it back. */
export interface ClientCursor extends Cursor {
  /** As it was given. */
  readonly text: string
  /** See `view-seal.ts`; '' where it has none. */
  readonly seal: string
}

const CURSOR_PATTERN =
  /^([0-9a-f]{12})\/(\d{1,20}:\d{1,20}:(?:\d{1,20}(?:,\d{1,20})*)?)(?:\/([0-9a-f]{32}))?$/

/** Cursors of clients with more running transactions than this are not worth parsing; they get a fresh start. */
const CURSOR_LENGTH_MAX = 64 * 1024

export function formatCursor(cursor: Cursor): string {
  return `${cursor.epoch}/${cursor.snapshot}`
}

/** Null for anything that this server cannot have made. */
export function parseCursor(text: string): ClientCursor | null {
  if (text.length > CURSOR_LENGTH_MAX) return null
  const match = CURSOR_PATTERN.exec(text)
  if (match === null) return null
  const snapshot = match[2] as string
  const [xmin, xmax, running] = partsOf(snapshot)
  if (xmin > xmax || xmax >= 1n << 63n || xmin === 0n) return null
  // pg_snapshot's input wants the running ones ascending and within [xmin, xmax).
  let previous = xmin - 1n
  for (const xid of running) {
    if (xid <= previous || xid >= xmax) return null
    previous = xid
  }
  return { text, epoch: match[1] as string, snapshot, seal: match[3] ?? '' }
}

/** A snapshot taken apart. */
export interface Snapshot {
  /** Every transaction before this one had ended. */
  readonly xmin: bigint
  /** No transaction from this one on had ended. */
  readonly xmax: bigint
  /** Those between the two that had not. */
  readonly running: ReadonlySet<bigint>
}

/** Takes the text of a `pg_snapshot` apart. */
export function snapshotOf(text: string): Snapshot {
  const [xmin, xmax, running] = partsOf(text)
  return { xmin, xmax, running: new Set(running) }
}

/** Whether a transaction had committed (or ended) before the snapshot was taken. */
export function isVisible(xid: bigint, { xmin, xmax, running }: Snapshot): boolean {
  return xid < xmin || (xid < xmax && !running.has(xid))
}

function partsOf(snapshot: string): [xmin: bigint, xmax: bigint, running: bigint[]] {
  const [xmin = '', xmax = '', running = ''] = snapshot.split(':')
  return [BigInt(xmin), BigInt(xmax), running === '' ? [] : running.split(',').map(BigInt)]
}
