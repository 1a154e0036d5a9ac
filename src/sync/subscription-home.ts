/**
 * What a subscription (subscription.ts) asks of the hub that it belongs to, which `table-hub.ts` is, and of the database
 * by way of it, which is read by `view-reader.ts`.
 */
import type { ClassResult } from '../db/as-principal.ts'
import type { Table } from '../db/catalog.ts'
import type { Snapshot } from '../db/cursor.ts'
import type { Bbox, Id } from '../wire/messages.ts'
import type { HeldCount } from './held-count.ts'
import type { ParkedViews } from './parked-views.ts'
import type { PrincipalClass } from './principal-class.ts'
import type { RowHandles } from './row-handles.ts'
import type { RowSize } from './row-size.ts'
import type { Subscriber } from './subscriber.ts'
import type { ViewSeal } from './view-seal.ts'

/** What a subscription asks of the hub that it belongs to. */
export interface SubscriptionHome<Subscription> {
  readonly table: Table
  /** The text of the cursor up to where changes have been handed out. */
  readonly cursorText: string
  readonly snapshot: Snapshot
  readonly reader: ViewReader
  readonly rowSize: RowSize
  readonly handles: RowHandles
  readonly seal: ViewSeal
  readonly parked: ParkedViews
  readonly heldCount: HeldCount
  unregister(subscription: Subscription): void
  /** It waits for the effect of a batch: ask it when the feed has moved (`reportSettled`). */
  awaitsBatch(subscription: Subscription): void
  moved(subscription: Subscription): void
  /** The table is not what a read was made for: look again, then tell every subscription. Never rejects. */
  tableChanged(): Promise<void>
}

/** Who reads: the claims to read under, and the socket that it counts for. */
export interface ReadFor {
  readonly class: PrincipalClass
  readonly subscriber: Subscriber
}

/** The reads of a subscription that catches up. Each rejects with a database error, or with {@link TableChanged}. */
export interface ViewReader {
  /** Ids in view; one more than the limit means too many. */
  ids(reader: ReadFor, bbox: Bbox | null): Promise<readonly Id[]>
  rows(reader: ReadFor, ids: readonly Id[]): Promise<ClassResult>
  /** Streams the rows in view, large ones without their JSON. `take` gets runs of them; when it resolves to false the reading stops. */
  stream(
    reader: ReadFor,
    bbox: Bbox | null,
    take: (rows: readonly { readonly id: Id; readonly json: string | null }[]) => Promise<boolean>,
  ): Promise<void>
}

/** The table's columns or policies are others than the reader believed. Nothing that was read may be sent. */
export class TableChanged extends Error {}
