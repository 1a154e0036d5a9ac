/**
 * Where rows are read from: the primary, which is all there is here, or a streaming replica of it (read-replica.ts). The
 * feed, edits, and whatever decides what is served stay with the primary (database.ts).
 */
import type { Sql } from 'postgres'
import type { ReadForClasses } from './as-principal.ts'
import type { Table } from './catalog.ts'
import { NotFromReplica, type ReplicaProof } from './replica-proof.ts'

export interface ReadPools {
  /** As {@link Database.sql}. */
  readonly sql: Sql
  /** As {@link Database.bulk}. */
  readonly bulk: Sql
}

export interface ReadSource extends ReadPools {
  /** Null: this is the primary. */
  readonly proof: ReplicaProof | null
}

/**
 * An error or another table than expected is no answer where a replica says so, which may not be able to do what the
 * primary can, or be in conflict with what it replays: the primary has the last word.
 */
export function insistOn(
  { proof }: ReadSource,
  { results, fingerprint }: ReadForClasses,
  table: Pick<Table, 'fingerprint'>,
): void {
  if (proof === null) return
  for (const result of results) if ('error' in result) throw new NotFromReplica(result.error)
  if (fingerprint !== table.fingerprint) throw new NotFromReplica('another table')
}

export interface Reads {
  /** Makes ready. Rejects with an `OperatorError` where what was configured cannot be right. */
  open(): Promise<void>
  /** What is read from now on has everything that the primary had written to its WAL up to here (`pg_lsn` as text). */
  reach(epoch: string, wal: string): void
  /**
   * The same for this moment: for whoever must see what no change announces, as claims that were swapped just after a
   * membership was granted. Rejects if the primary is away.
   */
  reachNow(): Promise<void>
  /**
   * Reads. `work` must do nothing but read, may be called a second time, with another source, and then its first result
   * does not count. A statement on a source with a proof checks that first.
   */
  run<T>(work: (source: ReadSource) => Promise<T>): Promise<T>
  /** How many reads were answered from where; null where there is no replica. */
  readonly counts: { readonly replica: number; readonly primary: number } | null
  /** Gives up the connections that are its own. `timeout`: seconds for what is under way. */
  close(timeout: number): Promise<void>
}

/** Reads from the primary. `pools` is asked each time, since they may be renewed. */
export function primaryReads(pools: () => ReadPools): Reads {
  return {
    counts: null,
    async open() {},
    reach() {},
    async reachNow() {},
    run(work) {
      const { sql, bulk } = pools()
      return work({ sql, bulk, proof: null })
    },
    async close() {},
  }
}
