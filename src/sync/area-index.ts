/** Which subscriptions could care about a change at a place: an R-tree of their boxes. */
import RBush from 'rbush'
import type { Change } from '../db/feed.ts'
import { type Envelope, intersects, rectanglesOf } from '../wire/bbox.ts'
import type { Bbox } from '../wire/messages.ts'

interface Entry<T> extends Envelope {
  readonly owner: T
}

export class AreaIndex<T> {
  readonly #tree = new RBush<Entry<T>>()
  readonly #entries = new Map<T, readonly Entry<T>[]>()
  readonly #everywhere = new Set<T>()

  /** Every owner, in the order they came. */
  get owners(): IterableIterator<T> {
    return this.#entries.keys()
  }

  get size(): number {
    return this.#entries.size
  }

  /** Adds an owner or moves it. Null: it cares wherever the change is. */
  set(owner: T, boxes: readonly Bbox[] | null): void {
    this.delete(owner)
    const rectangles = boxes?.flatMap(rectanglesOf) ?? []
    const entries = rectangles.map((rectangle) => ({ ...rectangle, owner }))
    for (const entry of entries) this.#tree.insert(entry)
    if (boxes === null) this.#everywhere.add(owner)
    this.#entries.set(owner, entries)
  }

  delete(owner: T): void {
    for (const entry of this.#entries.get(owner) ?? []) this.#tree.remove(entry)
    this.#entries.delete(owner)
    this.#everywhere.delete(owner)
  }

  /** Who has a box that the row was in, or is in now. */
  touchedBy({ before, after }: Change): Set<T> {
    if (!isPlace(before) || !isPlace(after)) return new Set(this.owners)
    const owners = new Set(this.#everywhere)
    if (before !== null) for (const { owner } of this.#tree.search(before)) owners.add(owner)
    if (after !== null) for (const { owner } of this.#tree.search(after)) owners.add(owner)
    return owners
  }
}

/** Whether a row was in a box or is in it now, as far as its envelopes say. Null: everything is near. */
export function isNear({ before, after }: Change, bbox: Bbox | null): boolean {
  if (bbox === null || !isPlace(before) || !isPlace(after)) return true
  return rectanglesOf(bbox).some(
    (rectangle) =>
      (before !== null && intersects(rectangle, before)) || (after !== null && intersects(rectangle, after)),
  )
}

/** False for an envelope that Postgres could not work out: the row could be anywhere. */
function isPlace(envelope: Envelope | null): boolean {
  if (envelope === null) return true
  return [envelope.minX, envelope.minY, envelope.maxX, envelope.maxY].every(Number.isFinite)
}
