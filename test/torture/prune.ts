/** The change log is pruned as if two hours had gone by since everything until now, so that no older cursor serves. */
import type { Sql } from 'postgres'

/** Rejects where Postgres is away, and then nothing was pruned. */
export async function pruneLog(sql: Sql): Promise<void> {
  await sql`insert into datum.tick (at, oldest_xid) values (now() - interval '2 hours', pg_snapshot_xmin(pg_current_snapshot()))`
  await sql`select datum.prune('1 hour', '1 day')`
}
