/**
 * Every bound of the protocol, with its unit and the reason for its number. Shared by server and client.
 */

/** The version that both sides name in `Sec-WebSocket-Protocol`. A frame's shape never changes within a version. */
export const SUBPROTOCOL = 'datum.v1'

/** How long a socket may stay open without authenticating. Long enough for a slow token endpoint on a phone. */
export const AUTH_DEADLINE_SECONDS = 10

/** Largest frame before authentication, in bytes: the largest token that is accepted, and its envelope. */
export const PRE_AUTH_FRAME_BYTES_MAX = 17 * 1024

/** Largest token, in bytes. Web servers commonly refuse headers past 8–16 KiB, so issuers stay below. */
export const TOKEN_BYTES_MAX = 16 * 1024

/** Claims of one token. Each is a setting that Postgres keeps by name in every pooled session. */
export const CLAIMS_MAX = 256

/** How deep a token's claims may be nested. Far above what issuers nest, far below what Postgres' own parser stands. */
export const CLAIM_NESTING_MAX = 64

/** Largest frame after authentication, in bytes: a resume that lists 100,000 UUIDs fits. */
export const FRAME_BYTES_MAX = 4 * 1024 * 1024

/** Edits in one batch. Each runs in its own savepoint, so a batch holds its transaction open for this many statements. */
export const EDITS_PER_BATCH_MAX = 500

/** Batches of one socket that may be waiting for the database. Further ones are answered `unavailable`. */
export const BATCHES_WAITING_MAX = 64

/**
 * Batches of one socket that a view of it may not have caught up with yet: the server remembers each until it can say
 * `settled`, and a socket that moves its boxes all the time is never told. Further ones are answered `unavailable`.
 */
export const BATCHES_UNSETTLED_MAX = 1_000

/** Subscriptions of one socket. */
export const SUBSCRIPTIONS_PER_SOCKET_MAX = 16

/** Rows that one subscription may hold. A box with more is refused with `too_many_rows`: zoom in. */
export const ROWS_PER_SUBSCRIPTION_MAX = 100_000

/**
 * Rows that all subscriptions of one socket may hold: two of the largest views, or sixteen of 12,500. The server keeps
 * a number for each, and the id of each row that anybody holds once (src/sync/row-handles.ts): some 50 megabytes at most.
 */
export const ROWS_PER_SOCKET_MAX = 200_000

/** Largest row as JSON, in bytes of UTF-8. A larger one ends the subscription with `row_too_large`. Half of what may be queued. */
export const ROW_BYTES_MAX = 8 * 1024 * 1024

/**
 * A `view` frame is cut once its rows have this many characters (three bytes each at most), so that one socket's catch-up
 * interleaves with the others'. Characters, since these are known without looking at each.
 */
export const VIEW_FRAME_CHARACTERS = 256 * 1024

/** Characters of a row id, and of the names of subscriptions and tables. */
export const ID_LENGTH_MAX = 256

/** What the server queues for a socket that does not read, in bytes, before it closes the socket. */
export const QUEUED_BYTES_MAX = 16 * 1024 * 1024

/**
 * Of that, the answers to what such a socket asks meanwhile (outcomes, pongs), in characters; then it is cut off. The
 * largest outcomes are some 100 kB, and a client that waits for each has one at a time.
 */
export const QUEUED_REPLIES_MAX = 2 * 1024 * 1024

/** How deep the JSON of a message may be nested. GeoJSON needs 8. */
export const NESTING_MAX = 64

/** Messages of one socket that may be waiting while an earlier one (a token, say) is worked on. */
export const INBOX_MESSAGES_MAX = 256

/**
 * Messages of one socket in a second, over any length of time, and at once. A map that follows a finger sends 60; a
 * thousand take the server some hundredths of a second.
 */
export const MESSAGES_PER_SECOND_MAX = 1_000
export const MESSAGES_BURST_MAX = 5_000

/**
 * A larger frame, in characters, is taken in its user's turn, and the user rests after it for four times what it took the
 * server. A thousand a second of this size take a tenth of its time: that many messages are allowed anyway.
 */
export const LARGE_FRAME_CHARACTERS = 4 * 1024

/** Characters of one socket's messages, and of its batches, that may be waiting: two of the largest frames. */
export const WAITING_CHARACTERS_MAX = 2 * FRAME_BYTES_MAX

/**
 * The same of all sockets of one user (one `sub` of one `iss`; without `sub`, an address): of two sockets that send as much as they may.
 */
export const WAITING_CHARACTERS_PER_USER_MAX = 2 * WAITING_CHARACTERS_MAX

/** And of everybody: some hundred megabytes, of sixteen users at their limit. */
export const WAITING_CHARACTERS_IN_ALL_MAX = 16 * WAITING_CHARACTERS_PER_USER_MAX

/**
 * A batch that must wait is kept as its text if that has more characters than this, and decoded again when its turn comes:
 * small values take sixteen times the memory of their text.
 */
export const KEPT_DECODED_MAX = 64 * 1024

/** Ids in one `gone`. With the longest ids this is a frame of a few hundred kilobytes. */
export const GONE_IDS_MAX = 1_000
