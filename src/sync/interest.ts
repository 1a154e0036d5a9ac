/**
 * Who could care about a batch of changes, and how little has to be read for it: rows by area (area-index.ts), areas by
 * class. Subscriptions that are not live, or of slow classes, just get the ids. The first half of what `table-hub.ts` does with a batch.
 */
import type { ClaimSettings } from '../db/as-principal.ts'
import type { Change } from '../db/feed.ts'
import type { Id } from '../wire/messages.ts'
import type { Area, AreaIndex } from './area-index.ts'
import type { RowHandles } from './row-handles.ts'
import type { Subscription } from './subscription.ts'

/** The rows that a batch is about, each once. By their place in `ids` everything else refers to them. */
export interface ChangedRows {
  readonly ids: readonly Id[]
  /** Retained until {@link releaseRows}. */
  readonly handles: readonly number[]
  readonly places: ReadonlyMap<Id, number>
}

/** A live subscription, and the stretch of being live in which is read for it. */
export interface Member {
  readonly subscription: Subscription
  readonly stretch: number
}

/** The members of a class that watch one area, and the rows that may matter there. */
export interface AreaInterest {
  readonly area: Area<Subscription>
  /** Ascending places in {@link ChangedRows}. */
  readonly rows: readonly number[]
  readonly members: Member[]
}

/** Everybody of one class whom the batch concerns. */
export interface ClassInterest {
  readonly key: string
  readonly settings: ClaimSettings
  readonly areas: AreaInterest[]
}

/** `changes` all have ids. */
export function changedRows(
  changes: readonly Change[],
  handles: RowHandles,
): ChangedRows & { readonly changesOf: readonly (readonly Change[])[] } {
  const ids: Id[] = []
  const changesOf: Change[][] = []
  const places = new Map<Id, number>()
  for (const change of changes) {
    const id = change.id as Id
    const place = places.get(id)
    if (place !== undefined) {
      changesOf[place]?.push(change)
      continue
    }
    places.set(id, ids.length)
    ids.push(id)
    changesOf.push([change])
  }
  return { ids, places, changesOf, handles: ids.map((id) => handles.retain(id)) }
}

export function releaseRows({ handles: retained }: ChangedRows, handles: RowHandles): void {
  for (const handle of retained) handles.release(handle)
}

/** Finds out who cares; tells those that are not live, and those of classes that nobody should wait for. */
export function interestIn(
  { ids, changesOf }: ReturnType<typeof changedRows>,
  subscriptions: AreaIndex<Subscription>,
  isSlow: (classKey: string) => boolean,
): ClassInterest[] {
  const touched = new Map<Area<Subscription>, number[]>()
  for (const [place, changes] of changesOf.entries()) {
    for (const change of changes) {
      for (const area of subscriptions.touchedBy(change)) {
        const rows = touched.get(area)
        if (rows === undefined) touched.set(area, [place])
        else if (rows.at(-1) !== place) rows.push(place)
      }
    }
  }
  const classes = new Map<string, ClassInterest>()
  const outstanding: [Subscription, readonly number[]][] = []
  for (const [area, rows] of touched) {
    for (const subscription of area.owners) {
      if (!subscription.isLive || isSlow(subscription.class.key)) {
        outstanding.push([subscription, rows])
        continue
      }
      const { key, settings } = subscription.class
      let interest = classes.get(key)
      if (interest === undefined) {
        interest = { key, settings, areas: [] }
        classes.set(key, interest)
      }
      const member = { subscription, stretch: subscription.liveStretch }
      // Owners of one area come one after the other.
      const last = interest.areas.at(-1)
      if (last?.area === area) last.members.push(member)
      else interest.areas.push({ area, rows, members: [member] })
    }
  }
  for (const [subscription, rows] of outstanding) subscription.markDirty(rows.map((place) => ids[place]!))
  return [...classes.values()]
}
