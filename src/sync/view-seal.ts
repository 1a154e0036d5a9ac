/**
 * Seals cursors: a seal says that whoever holds exactly these rows held the whole view at that cursor, a view being a box
 * under the claims and policies of the time. A client that comes back with it is then told what changed since, and
 * nothing has to be compared. It is keyed, so that no client can claim rows that it was never sent and learn from what it
 * is told of them whether they exist (invariant 3). All servers of a database share the key.
 */
import type { Table } from '../db/catalog.ts'
import type { Bbox } from '../wire/messages.ts'
import type { PrincipalClass } from './principal-class.ts'

/** Sealed cursors that are kept for one cursor: one for each class and area, since everybody there holds the same. */
const KEPT_MAX = 10_000

/** Says what a view is a view of; null where rows may come into view or leave it without a change being logged. */
export function viewIdentity(bbox: Bbox | null, { key }: PrincipalClass, table: Table): string | null {
  if (!table.policyReads.rowAlone) return null
  return JSON.stringify([bbox, key, table.oid, table.fingerprint])
}

export class ViewSeal {
  readonly #key: string
  #cursor = ''
  readonly #kept = new Map<string, string>()

  constructor(key: string) {
    this.#key = key
  }

  /** The cursor with its seal. `heldHash`: {@link HeldSet.hash} of what is held at that cursor. */
  sealed(cursor: string, identity: string, heldHash: string): string {
    if (cursor !== this.#cursor || this.#kept.size > KEPT_MAX) {
      this.#cursor = cursor
      this.#kept.clear()
    }
    const view = `${heldHash} ${identity}`
    let sealed = this.#kept.get(view)
    if (sealed === undefined) {
      const hash = new Bun.CryptoHasher('sha256', this.#key).update(`${cursor} ${view}`).digest('hex')
      sealed = `${cursor}/${hash.slice(0, 32)}`
      this.#kept.set(view, sealed)
    }
    return sealed
  }
}
