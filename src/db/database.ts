/** A Postgres to work with: a real one over the network or the embedded one in this process. */
import type { Sql } from 'postgres'
import type { Reads } from './reads.ts'

export interface Database {
  readonly kind: 'postgres' | 'embedded'
  /**
   * One connection for the change feed, which keeps a lock of its session. On the embedded database there is only one,
   * and the four are the same.
   */
  readonly feed: Sql
  /** What everybody waits for: the shared reads. Apart from the others, so that no slow policy and no lock holds it up. */
  readonly sql: Sql
  /** The reads of one subscription: snapshots, comparisons, catching up. */
  readonly bulk: Sql
  /** The door to reads of rows: `sql` and `bulk` of here, or of a replica. */
  readonly reads: Reads
  /** Edits, which may have to wait for locks of the application. */
  readonly writes: Sql
  /**
   * Calls `onRing` whenever something notifies the channel, and once after every reconnect, since a ring may have been
   * lost meanwhile. Returns a function that stops listening. Rejects where LISTEN is impossible.
   */
  listen(channel: string, onRing: () => void): Promise<() => Promise<void>>
  /**
   * Leaves all connections to themselves and goes on over new ones; what was under way rejects. For connections that
   * went dead without a word, which nothing else ends for many minutes.
   */
  renew(): void
  close(): Promise<void>
}
