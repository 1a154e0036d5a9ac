/**
 * The messages of the protocol, as TypeScript sees them. One JSON object per WebSocket text frame.
 * `docs/PROTOCOL.md` has an example of each, and a test holds the two together. This module has types only and
 * imports nothing, so that the server and the browser client can share it.
 */

/** West, south, east, north in degrees (WGS 84, EPSG:4326). West > east means that the box crosses the antimeridian. */
export type Bbox = readonly [west: number, south: number, east: number, north: number]

/** A row's primary key as text: UUIDs in lower case, integers in decimal. */
export type Id = string

/** Any JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/**
 * A row as the wire has it: columns by name. The geometry is a GeoJSON geometry object in WGS 84; `bigint`, `numeric`
 * and everything JSON has no exact form for are strings, as Postgres writes them.
 */
export type Row = { readonly [column: string]: Json }

export interface ColumnInfo {
  readonly name: string
  /** The type as Postgres names it: `uuid`, `character varying(20)`, `timestamp with time zone`, … */
  readonly type: string
  readonly nullable: boolean
  /** Whether Postgres fills the column in when an insert leaves it out. */
  readonly hasDefault: boolean
}

export interface TableInfo {
  /** As the client names it in `subscribe` and `write`: `features`, or `schema.features` outside of `public`. */
  readonly name: string
  readonly idColumn: string
  readonly idType: 'uuid' | 'text' | 'integer'
  /** The column that the box applies to; null for a table without geometry, which takes no box. */
  readonly geometryColumn: string | null
  readonly columns: readonly ColumnInfo[]
}

// ---- client → server ------------------------------------------------------------------------------------------------

/** First message where the server has `auth:`; later, on the same socket, the token's refresh. */
export interface AuthMessage {
  readonly type: 'auth'
  readonly token: string
}

/** Opens a subscription under a name of the client's choosing, free for reuse once `ended` or unsubscribed. */
export interface SubscribeMessage {
  readonly type: 'subscribe'
  readonly sub: string
  /** Default: the server's first table. */
  readonly table?: string
  /** Required for a table with geometry, refused for one without. */
  readonly bbox?: Bbox
  /**
   * What the client kept from an earlier socket: its last cursor, and every id it holds. The ids may be left out where it
   * holds exactly what it held when it got the cursor; a server that does not remember ends it with `held_needed`.
   */
  readonly resume?: { readonly cursor: string; readonly held?: readonly Id[] | undefined }
}

/** Moves a subscription's box. Answered by `view` frames, the last with `complete: seq`. */
export interface BboxMessage {
  readonly type: 'bbox'
  readonly sub: string
  /** Grows with every `bbox` message of this subscription; 0 is the subscription itself. */
  readonly seq: number
  readonly bbox: Bbox
}

export interface UnsubscribeMessage {
  readonly type: 'unsubscribe'
  readonly sub: string
}

export type Edit =
  | { readonly op: 'insert'; readonly columns: Row }
  | { readonly op: 'update'; readonly id: Id; readonly columns: Row }
  | { readonly op: 'delete'; readonly id: Id }

/** Edits to one table. Sent again with the same `batch` after a lost connection; applied exactly once. */
export interface WriteMessage {
  readonly type: 'write'
  /** A UUID that the client makes. */
  readonly batch: string
  /** Default: the server's first table. */
  readonly table?: string
  readonly edits: readonly Edit[]
}

/** Browsers cannot send WebSocket pings; this keeps a socket alive through proxies and finds a dead one. */
export interface PingMessage {
  readonly type: 'ping'
}

export type ClientMessage =
  | AuthMessage
  | SubscribeMessage
  | BboxMessage
  | UnsubscribeMessage
  | WriteMessage
  | PingMessage

// ---- server → client ------------------------------------------------------------------------------------------------

/** The token was accepted (or, on a server without `auth:`, was not looked at). */
export interface AuthenticatedMessage {
  readonly type: 'authenticated'
  /** The token's `exp`, in seconds since 1970; null where the server has no `auth:`. */
  readonly expiresAt: number | null
}

/** The subscription is open. `view` frames follow. */
export interface SubscribedMessage {
  readonly type: 'subscribed'
  readonly sub: string
  readonly table: TableInfo
  /** True: the rows the client holds stand, and `view` frames bring the difference. False: start from nothing. */
  readonly resumed: boolean
}

/**
 * What changed in one subscription's view. Applied in order: each row replaces the one with its id, each id of `gone`
 * is removed. Until the first `complete` the view is a part of the truth; `cursor` marks a moment when it is all of it.
 */
export interface ViewMessage {
  readonly type: 'view'
  readonly sub: string
  readonly rows?: readonly Row[]
  readonly gone?: readonly Id[]
  /** What to send in `resume`, opaque to the client. Everything committed before it is in the view. */
  readonly cursor?: string
  /** The request (0, or a `bbox` message's `seq`) that the view now answers in full. */
  readonly complete?: number
  /** Batches of this socket whose effect is now in the view: their optimistic edits can go. */
  readonly settled?: readonly string[]
}

export type RejectionCode =
  | 'forbidden'
  | 'not_found'
  | 'conflict'
  | 'invalid'
  | 'too_large'
  | 'rate_limited'
  | 'timeout'
  | 'error'

export type EditOutcome =
  | { readonly status: 'applied'; readonly id: Id }
  | { readonly status: 'rejected'; readonly code: RejectionCode; readonly message: string }

/** One outcome for each edit of the batch, in the batch's order. Final. */
export interface OutcomeMessage {
  readonly type: 'outcome'
  readonly batch: string
  readonly edits: readonly EditOutcome[]
}

/** The batch could not be tried (the database is away). Nothing was decided: send it again. */
export interface UnavailableMessage {
  readonly type: 'unavailable'
  readonly batch: string
  readonly retryAfterMs: number
}

export type EndCode =
  | 'unknown_table'
  | 'invalid'
  | 'forbidden'
  | 'policy_error'
  | 'too_many_rows'
  | 'too_many_subscriptions'
  | 'row_too_large'
  | 'timeout'
  | 'schema_changed'
  | 'held_needed'
  | 'error'

/** The subscription is over; the socket stays. The client must drop its rows for every code but `schema_changed` and `held_needed`. */
export interface EndedMessage {
  readonly type: 'ended'
  readonly sub: string
  readonly code: EndCode
  readonly message: string
}

export interface PongMessage {
  readonly type: 'pong'
  /** Newer cursors of subscriptions whose view is complete, by subscription, so that a quiet view resumes cheaply. */
  readonly cursors: { readonly [sub: string]: string }
}

/** Sent just before the server closes a socket over something the client sent; the close code says the same. */
export interface ErrorMessage {
  readonly type: 'error'
  readonly code: number
  readonly message: string
}

export type ServerMessage =
  | AuthenticatedMessage
  | SubscribedMessage
  | ViewMessage
  | OutcomeMessage
  | UnavailableMessage
  | EndedMessage
  | PongMessage
  | ErrorMessage
