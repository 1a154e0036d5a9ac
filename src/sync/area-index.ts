/**
 * Which subscriptions could care about a change at a place: an R-tree of areas. Subscriptions that watch the very same
 * boxes share an area, so that what a change costs to look up grows with the areas that it touches.
 */
import RBush from 'rbush'
import type { Change } from '../db/feed.ts'
import { type Envelope, intersects, rectanglesOf } from '../wire/bbox.ts'
import type { Bbox } from '../wire/messages.ts'

/** Boxes, and who watches them. */
export interface Area<T> {
  /** Null: everywhere. */
  readonly boxes: readonly Bbox[] | null
  readonly owners: ReadonlySet<T>
}

class OwnedArea<T> implements Area<T> {
  readonly key: string
  readonly boxes: readonly Bbox[] | null
  readonly owners = new Set<T>()
  readonly entries: readonly Entry<T>[]

  constructor(key: string, boxes: readonly Bbox[] | null) {
    this.key = key
    this.boxes = boxes
    const rectangles = boxes?.flatMap(rectanglesOf) ?? []
    this.entries = rectangles.map((rectangle) => ({ ...rectangle, area: this }))
  }
}

interface Entry<T> extends Envelope {
  readonly area: OwnedArea<T>
}

export class AreaIndex<T> {
  readonly #tree = new RBush<Entry<T>>()
  readonly #areas = new Map<string, OwnedArea<T>>()
  readonly #areaOf = new Map<T, OwnedArea<T>>()

  /** Every owner, in the order they came. */
  get owners(): IterableIterator<T> {
    return this.#areaOf.keys()
  }

  get size(): number {
    return this.#areaOf.size
  }

  /** Adds an owner or moves it. Null: it cares wherever the change is. */
  set(owner: T, boxes: readonly Bbox[] | null): void {
    const key = boxes === null ? '' : boxes.join(';')
    if (this.#areaOf.get(owner)?.key === key) return
    this.delete(owner)
    let area = this.#areas.get(key)
    if (area === undefined) {
      area = new OwnedArea<T>(key, boxes)
      this.#areas.set(key, area)
      for (const entry of area.entries) this.#tree.insert(entry)
    }
    area.owners.add(owner)
    this.#areaOf.set(owner, area)
  }

  delete(owner: T): void {
    const area = this.#areaOf.get(owner)
    if (area === undefined) return
    this.#areaOf.delete(owner)
    area.owners.delete(owner)
    if (area.owners.size > 0) return
    this.#areas.delete(area.key)
    for (const entry of area.entries) this.#tree.remove(entry)
  }

  /** The areas that the row was in, or is in now. */
  touchedBy({ before, after }: Pick<Change, 'before' | 'after'>): Set<Area<T>> {
    if (!isPlace(before) || !isPlace(after)) return new Set(this.#areas.values())
    const areas = new Set<Area<T>>()
    const everywhere = this.#areas.get('')
    if (everywhere !== undefined) areas.add(everywhere)
    if (before !== null) for (const { area } of this.#tree.search(before)) areas.add(area)
    if (after !== null && after !== before) for (const { area } of this.#tree.search(after)) areas.add(area)
    return areas
  }
}

/** Whether a row was in a box or is in it now, as far as its envelopes say. Null: everything is near. */
export function isNear({ before, after }: Pick<Change, 'before' | 'after'>, bbox: Bbox | null): boolean {
  if (bbox === null || !isPlace(before) || !isPlace(after)) return true
  return rectanglesOf(bbox).some(
    (rectangle) =>
      (before !== null && intersects(rectangle, before)) || (after !== null && intersects(rectangle, after)),
  )
}

/** False for an envelope that Postgres could not work out: the row could be anywhere. */
function isPlace(envelope: Envelope | null): boolean {
  if (envelope === null) return true
  return (
    Number.isFinite(envelope.minX) &&
    Number.isFinite(envelope.minY) &&
    Number.isFinite(envelope.maxX) &&
    Number.isFinite(envelope.maxY)
  )
}
