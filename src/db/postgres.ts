/**
 * Opens a Postgres server over the network: small pools, and a connection of its own for LISTEN. Its twin for the
 * Postgres in this process is `embedded.ts`.
 */
import postgres, { type Options, type PostgresType } from 'postgres'
import type { Log } from '../observe/log.ts'
import type { Database } from './database.ts'
import { errorCode } from './error-code.ts'
import { ReadReplica } from './read-replica.ts'
import { primaryReads } from './reads.ts'

/** Connections of the shared reads, of which there is one at a time for each table. */
const SHARED_CONNECTIONS = 2
/** Connections for the reads of single subscriptions. A snapshot holds one for as long as it streams. */
export const READ_CONNECTIONS = 6
/** More of them for classes whose policies are slow, so that these do not hold up others. */
export const SLOW_READ_CONNECTIONS = 4
/** Connections for edits. More than Postgres has cores, since an edit may be waiting for a lock. */
export const WRITE_CONNECTIONS = 6
/** More of them, for edits that take long. */
export const OVERDUE_WRITE_CONNECTIONS = 6
const BULK_CONNECTIONS = READ_CONNECTIONS + SLOW_READ_CONNECTIONS
const CONNECT_TIMEOUT_SECONDS = 10
/**
 * How long a connection may be asked something and say nothing at all. Postgres limits every statement to less
 * (`statement_timeout`; shared reads are cancelled), so that the line or the process at its end is dead, which nothing
 * else would tell for many minutes.
 */
const ANSWER_SECONDS = 20
/** Connections that served a rush are given back. */
const IDLE_SECONDS = 60
/** What is under way gets this long when the pools close. */
const CLOSE_SECONDS = 2

/** Settings that the text form of values depends on. Both pass through a transaction-mode pooler. */
const SESSION_SETTINGS = { TimeZone: 'UTC', DateStyle: 'ISO, MDY' }

interface PostgresOptions {
  /** How long a connection that was asked may say nothing; null for who has statements that may take their time. */
  readonly answerSeconds?: number | null
  /** Of a streaming replica to read from. */
  readonly readUrl?: string | null
}

/**
 * `url` as libpq has it; `?prepare=false` for poolers that cannot keep prepared statements, `?sslmode=require` for TLS.
 * Connects lazily: an unreachable server shows at the first statement.
 */
export function openPostgres(
  url: string,
  log: Log,
  { answerSeconds = ANSWER_SECONDS, readUrl = null }: PostgresOptions = {},
): Database {
  // answer_timeout is this project's (patches/): the connection is left, and its queries reject with CONNECTION_TIMEOUT.
  const options: Options<Record<string, PostgresType>> & { readonly answer_timeout: number | null } = {
    answer_timeout: answerSeconds,
    connect_timeout: CONNECT_TIMEOUT_SECONDS,
    onnotice: (notice) => log.debug(`Postgres: ${notice.severity} ${notice.code}`),
    connection: { application_name: 'datum-server', ...SESSION_SETTINGS },
    // The default grows with every connection that is lost, and a pool loses all of them at once. In seconds.
    backoff: () => 0.1 + Math.random() * 0.3,
    // Ids and texts stay as Postgres writes them; nothing here needs dates or numbers of its own.
    fetch_types: false,
  }
  const openReads = (at: string) => ({
    sql: postgres(at, { ...options, max: SHARED_CONNECTIONS }),
    bulk: postgres(at, { ...options, max: BULK_CONNECTIONS, idle_timeout: IDLE_SECONDS }),
  })
  const openFeed = () => postgres(url, { ...options, max: 1 })
  const openPools = () => ({
    ...openReads(url),
    feed: openFeed(),
    writes: postgres(url, {
      ...options,
      max: WRITE_CONNECTIONS + OVERDUE_WRITE_CONNECTIONS,
      idle_timeout: IDLE_SECONDS,
    }),
  })
  let pools = openPools()
  const reads =
    readUrl === null
      ? primaryReads(() => pools)
      : new ReadReplica({
          primary: () => pools,
          open: () => ({ ...openReads(readUrl), probe: postgres(readUrl, { ...options, max: 1 }) }),
          log,
        })
  const leave = (old: readonly { end(options: { timeout: number }): Promise<void> }[]) => {
    Promise.all(old.map((pool) => pool.end({ timeout: 0 }))).catch((error) =>
      log.debug(`Old connections did not end well (${errorCode(error)}).`),
    )
  }
  const endAll = (timeout: number) => Promise.all(Object.values(pools).map((pool) => pool.end({ timeout })))
  return {
    kind: 'postgres',
    reads,
    get feed() {
      return pools.feed
    },
    get sql() {
      return pools.sql
    },
    get bulk() {
      return pools.bulk
    },
    get writes() {
      return pools.writes
    },
    async listen(channel, onRing) {
      const { feed } = pools
      try {
        const subscription = await feed.listen(channel, onRing, onRing)
        return () => subscription.unlisten()
      } catch (error) {
        // postgres.js keeps a listener whose LISTEN failed, so that each try would add one: the next begins from nothing.
        if (pools.feed === feed) pools = { ...pools, feed: openFeed() }
        leave([feed])
        throw error
      }
    },
    renew() {
      leave(Object.values(pools))
      pools = openPools()
    },
    async close() {
      await Promise.all([endAll(CLOSE_SECONDS), reads.close(CLOSE_SECONDS)])
    },
  }
}
