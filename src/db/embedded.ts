/**
 * The embedded default: Postgres 18 with PostGIS in this process, no installation, data in one folder or in memory.
 * `embedded-boot.ts` starts it, `embedded-init.ts` fills it; to the rest of the server it is a `Database` like another.
 *
 * There is one session. Every statement waits for the one before, a transaction holds up everything else until it
 * ends, and a statement under way blocks the process: right for trying out, development, and small maps.
 */
import { existsSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { PGlite } from '@electric-sql/pglite'
import postgres, { type Options, type Sql } from 'postgres'
import type { Log } from '../observe/log.ts'
import { OperatorError } from '../operator-error.ts'
import type { Database } from './database.ts'
import { bootPglite } from './embedded-boot.ts'
import { EMBEDDED_ROLE, initialise } from './embedded-init.ts'
import { lockFolder } from './embedded-lock.ts'
import { EmbeddedSocket } from './embedded-socket.ts'
import { primaryReads } from './reads.ts'

export interface EmbeddedDatabase extends Database {
  readonly kind: 'embedded'
  /** The restricted role that `sql` works as. */
  readonly role: string
  /**
   * Runs `work` as the superuser, to install or to load. It gets a connection of its own, and everything on `sql`
   * waits until it is done: inside of `work`, awaiting `sql` would wait for ever.
   */
  asOwner<T>(work: (owner: Sql) => Promise<T>): Promise<T>
}

interface EmbeddedParts {
  /** Folder for the data, made if it is missing; null: in memory, gone with the process. */
  readonly dataDir: string | null
  /** Run once, when the database is made; null: a plain `features` table. */
  readonly initSql: string | null
  /** Default: `datum_app`. */
  readonly role?: string
  readonly log: Log
}

/** Takes a few seconds. Rejects with an `OperatorError` where the operator can do something about it. */
export async function openEmbedded(parts: EmbeddedParts): Promise<EmbeddedDatabase> {
  if (parts.dataDir === null) {
    const pglite = await bootPglite(null)
    return await connect(pglite, parts, true, async () => {})
  }

  const folder = resolve(parts.dataDir)
  await mkdir(folder, { recursive: true })
  const unlock = lockFolder(folder)
  try {
    const data = join(folder, 'postgres')
    const finished = join(folder, 'created')
    const isNew = !existsSync(finished)
    // Data without the mark is what a start left behind that was cut off: nobody has ever worked with it.
    if (isNew) await rm(data, { recursive: true, force: true })
    parts.log.debug(isNew ? `Making an embedded database in ${folder}` : `Opening the database in ${folder}`)
    const pglite = await bootPglite(data).catch((cause: Error) => {
      throw new OperatorError(
        `The embedded database in ${folder} does not start: ${cause.message}\n` +
          'If it was made by another version of datum-server, use that one, or move the folder away to begin anew.',
      )
    })
    const database = await connect(pglite, parts, isNew, async () => unlock())
    if (isNew)
      await writeFile(finished, 'This database was made in full. Removing this file removes the data.\n')
    return database
  } catch (cause) {
    unlock()
    throw cause
  }
}

async function connect(
  pglite: PGlite,
  parts: EmbeddedParts,
  isNew: boolean,
  released: () => Promise<void>,
): Promise<EmbeddedDatabase> {
  const role = parts.role ?? EMBEDDED_ROLE
  const listeners = new Map<string, Set<() => void>>()
  const ring = (channel: string) => {
    for (const onRing of listeners.get(channel) ?? []) onRing()
  }
  const sql = openSession(pglite, ring)

  async function asOwner<T>(work: (owner: Sql) => Promise<T>): Promise<T> {
    const held = await sql.reserve()
    try {
      await held.unsafe('reset role')
      const owner = openSession(pglite, ring)
      try {
        return await work(owner)
      } finally {
        await owner.end()
        await held`set role ${held(role)}`
      }
    } finally {
      held.release()
    }
  }

  try {
    if (isNew) await initialise(sql, role, parts.initSql)
    await sql`set role ${sql(role)}`
    // Writer and server are one session here, so the lock by which servers ask to be rung would not be seen.
    await sql`set datum_server.ring = 'always'`
  } catch (cause) {
    await sql.end()
    await pglite.close()
    throw cause
  }

  return {
    kind: 'embedded',
    role,
    sql,
    feed: sql,
    bulk: sql,
    writes: sql,
    reads: primaryReads(() => ({ sql, bulk: sql })),
    asOwner,
    async listen(channel, onRing) {
      const onChannel = listeners.get(channel) ?? new Set()
      listeners.set(channel, onChannel.add(onRing))
      await sql`listen ${sql(channel)}`
      return async () => {
        onChannel.delete(onRing)
        if (onChannel.size > 0 || listeners.get(channel) !== onChannel) return
        listeners.delete(channel)
        await sql`unlisten ${sql(channel)}`
      }
    },
    // It lives in this process: there is no line that could go dead.
    renew: () => {},
    async close() {
      await sql.end()
      await pglite.close()
      await released()
    },
  }
}

/** Options of postgres.js that its types leave out. */
interface SessionOptions extends Options<Record<string, never>> {
  socket: () => EmbeddedSocket
  onnotify: (channel: string) => void
}

/** All of these speak to the one session there is, so they must not be used side by side. */
function openSession(pglite: PGlite, ring: (channel: string) => void): Sql {
  const options: SessionOptions = {
    // Named only so that postgres.js does not look into the environment's PGHOST and its like.
    host: 'embedded',
    port: 5432,
    user: 'postgres',
    database: 'postgres',
    password: '',
    ssl: false,
    socket: () => new EmbeddedSocket(pglite),
    max: 1,
    idle_timeout: 0,
    max_lifetime: 0,
    onnotice: () => {},
    onnotify: ring,
  }
  return postgres(options)
}
