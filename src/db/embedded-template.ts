/**
 * A prepared, empty database with PostGIS, as an archive: a new embedded database starts from it in less than half
 * the time that `initdb` and `create extension postgis` take. `build.ts` ships one; from source it is made once.
 */
import { mkdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import { postgis } from '@electric-sql/pglite-postgis'
import { dependencies } from '../../package.json'
import { EMBEDDED_ASSETS } from './embedded-assets.ts'

/** The archive depends on what made it, so it is kept under those versions. */
const FILE_NAME = `postgres-${dependencies['@electric-sql/pglite']}-${dependencies['@electric-sql/pglite-postgis']}.tgz`

/** A tar archive of the data folder, as PGlite's `loadDataDir` takes it. */
export async function readTemplate(): Promise<Blob> {
  const path = EMBEDDED_ASSETS?.template ?? (await templatePath())
  return new Blob([Bun.gunzipSync(await Bun.file(path).bytes())])
}

/** About 60 MB of data in 7 MB. */
async function makeTemplate(): Promise<Uint8Array> {
  const pglite = await PGlite.create({ extensions: { postgis } })
  try {
    await pglite.exec('create extension postgis')
    await pglite.exec('vacuum freeze analyze')
    await pglite.exec('checkpoint')
    const archive = await pglite.dumpDataDir('none')
    return Bun.gzipSync(await archive.arrayBuffer(), { level: 6 })
  } finally {
    await pglite.close()
  }
}

/** The archive's file when run from source: made by the first that needs it, kept where other tools keep such things. */
export async function templatePath(): Promise<string> {
  const path = join(import.meta.dir, '../../node_modules/.cache/datum-server', FILE_NAME)
  if (await Bun.file(path).exists()) return path
  const unfinished = `${path}.${process.pid}-${crypto.randomUUID()}`
  await mkdir(dirname(path), { recursive: true })
  try {
    await Bun.write(unfinished, await makeTemplate())
    // In one step, so that a second process that starts meanwhile never reads half of it.
    await rename(unfinished, path)
  } finally {
    await rm(unfinished, { force: true })
  }
  return path
}
