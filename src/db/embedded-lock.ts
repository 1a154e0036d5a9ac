/**
 * One process at a time in an embedded database's folder: two would destroy each other's data. `embedded.ts` holds
 * the lock for as long as the database is open.
 */
import { Database } from 'bun:sqlite'
import { join } from 'node:path'
import { OperatorError } from '../operator-error.ts'

/** Kept from the garbage collector, which would close them and so give the folder away. */
const held = new Set<Database>()

/**
 * Takes the folder or throws an `OperatorError`; returns what gives it back. SQLite's exclusive lock is used because
 * the operating system drops it when a process dies, however it dies: no stale file with a process id to judge.
 */
export function lockFolder(folder: string): () => void {
  const lock = new Database(join(folder, 'lock'), { create: true })
  try {
    lock.run('begin exclusive')
  } catch (cause) {
    lock.close()
    if ((cause as { code?: string }).code !== 'SQLITE_BUSY') throw cause
    throw new OperatorError(
      `The embedded database in ${folder} is in use by another datum-server process.\n` +
        'Stop that process, or start this one in another folder, or give it a database with -db or DATABASE_URL.',
    )
  }
  held.add(lock)
  return () => {
    held.delete(lock)
    lock.close()
  }
}
