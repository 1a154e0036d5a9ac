/**
 * What makes a replica's answer as good as the primary's: positions in the WAL, the condition that every statement there
 * checks before it reads, and the proof that the replica follows this very primary. `read-replica.ts` works with it.
 */
import type { Sql } from 'postgres'

/** What a statement on a replica must find true before it reads: see {@link provenSql}. */
export interface ReplicaProof {
  /** The position in the WAL (`pg_lsn` as text) up to which the replica must have replayed. */
  readonly replayed: string
  /** Which run of which replica it is. */
  readonly run: string
}

/** A replica's answer is not to be used; the primary is asked. `code`: an SQLSTATE, or a word. */
export class NotFromReplica extends Error {
  constructor(readonly code: string) {
    super('the replica cannot answer this')
  }
}

/** The code of a {@link NotFromReplica} that has not replayed as much as it must, or is not what it was. */
export const NOT_REPLAYED = 'not replayed'

/** The number of a `pg_lsn`: bytes of WAL. */
export function walPosition(lsn: string): bigint {
  const [high = '0', low = '0'] = lsn.split('/')
  return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`)
}

export function walText(position: bigint): string {
  return `${(position >> 32n).toString(16)}/${(position & 0xffffffffn).toString(16)}`.toUpperCase()
}

/** The longer header of a page of WAL, which a segment's first page has (access/xlog_internal.h). Others have 24 bytes. */
const WAL_PAGE_HEADER_BYTES_MAX = 40n

/**
 * How far a replica is that has replayed all of the WAL before the insert position. That position lies behind the header
 * of a page where nothing is in the page yet, and records end before headers, not behind. No record ends within these
 * bytes that does not begin in the page before, so nothing is let through that is not replayed.
 */
export function replayedAt(position: bigint, blockSize: bigint): bigint {
  const offset = position % blockSize
  return offset <= WAL_PAGE_HEADER_BYTES_MAX ? position - offset : position
}

/** Tells one run of a server from another, since a replica that starts again may have lost what it had replayed. */
const RUN_SQL = `extract(epoch from pg_postmaster_start_time())::text`

/**
 * SQL: whether the session is on the replica of the proof, which has replayed enough. To be found true by a statement
 * before the one that reads, or by the same before it takes the snapshot that it reads with: what is replayed by then
 * is in it. In one isolation level only, since others take one snapshot at the beginning. `lsn`, `run`: SQL for the proof's.
 */
export function provenSql(lsn: string, run: string): string {
  return `coalesce(pg_is_in_recovery() and pg_last_wal_replay_lsn() >= ${lsn}::text::pg_lsn and ${RUN_SQL} = ${run}::text
    and current_setting('transaction_isolation') = 'read committed', false)`
}

/** What a server says of itself. `replayed`: null unless it is a standby that follows by WAL. */
export interface Standing {
  readonly standby: boolean
  readonly replayed: bigint | null
  readonly run: string
  readonly role: string
  readonly isolation: string
  readonly blockSize: bigint
}

export async function standingOf(sql: Sql): Promise<Standing> {
  const [row] = await sql.unsafe<
    {
      standby: boolean
      replayed: string | null
      run: string
      role: string
      isolation: string
      block_size: string
    }[]
  >(
    `select pg_is_in_recovery() as standby, pg_last_wal_replay_lsn()::text as replayed, ${RUN_SQL} as run,
       current_user::text as role, current_setting('transaction_isolation') as isolation,
       current_setting('wal_block_size') as block_size`,
    [],
    { prepare: true },
  )
  if (row === undefined) throw new Error('the server says nothing of itself')
  const { standby, replayed, run, role, isolation, block_size } = row
  return {
    standby,
    run,
    role,
    isolation,
    replayed: standby && replayed !== null ? walPosition(replayed) : null,
    blockSize: BigInt(block_size),
  }
}

/** Where the primary is: which one it is (`datum.epoch`), and the end of all WAL that it has made. */
export async function pointNow(primary: Sql): Promise<{ readonly epoch: string; readonly wal: string }> {
  const [row] = await primary<{ epoch: string; wal: string }[]>`
    select datum.epoch() as epoch, pg_current_wal_insert_lsn()::text as wal`
  if (row === undefined) throw new Error('the primary does not say where it is')
  return row
}

/** Which installation it is, and when a server was last there: to the microsecond, so no two databases have the same. */
interface Mark {
  readonly epoch: string
  readonly at: string
}

/** Null where there is no such thing. */
export async function markOf(sql: Sql): Promise<Mark | null> {
  try {
    const [row] = await sql<
      Mark[]
    >`select m.epoch::text as epoch, extract(epoch from m.attended_at)::text as at from datum.meta m`
    return row ?? null
  } catch (error) {
    // undefined_table, invalid_schema_name, undefined_column, insufficient_privilege
    if (['42P01', '3F000', '42703', '42501'].includes((error as { code?: string }).code ?? '')) return null
    throw error
  }
}

const MARKING_ATTEMPTS = 10
const MARKING_PAUSE_MS = 20

/**
 * Leaves a new mark on the primary. A replica that shows it follows this primary, and not a copy of it that went its own
 * way. Made by what every server does once a minute, with an age that nothing in the log has, so that nothing is dropped.
 */
export async function leaveMark(primary: Sql): Promise<Mark> {
  const before = await markOf(primary)
  for (let attempt = 1; ; attempt++) {
    await primary`select datum.prune('100 years'::interval, '100 years'::interval, 1, true)`
    const mark = await markOf(primary)
    if (mark !== null && mark.at !== before?.at) return mark
    if (attempt === MARKING_ATTEMPTS) throw new Error('no mark could be left on the primary')
    // Another server has the row in hand.
    await Bun.sleep(MARKING_PAUSE_MS)
  }
}
