/**
 * Starts the Postgres in this process (PGlite) with PostGIS on board. Knows about files and WebAssembly only; what is
 * in the database is the business of `embedded-template.ts` and `embedded-init.ts`.
 */
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Extension, PGlite, type PGliteOptions } from '@electric-sql/pglite'
import { postgis } from '@electric-sql/pglite-postgis'
import { EMBEDDED_ASSETS, type EmbeddedAssets } from './embedded-assets.ts'
import { readTemplate } from './embedded-template.ts'

/**
 * Resolves when Postgres takes queries. `dataDir` is made from the template if it does not exist; null: in memory,
 * gone with the process.
 */
export async function bootPglite(dataDir: string | null): Promise<PGlite> {
  const data: PGliteOptions = dataDir === null ? {} : { dataDir }
  if (dataDir === null || !existsSync(dataDir)) data.loadDataDir = await readTemplate()

  const files = EMBEDDED_ASSETS?.pglite ?? null
  if (files === null) return await PGlite.create({ ...data, extensions: { postgis } })

  const scratch = await mkdtemp(join(tmpdir(), 'datum-server-'))
  try {
    return await PGlite.create({ ...data, ...(await optionsOf(files, scratch)) })
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

async function optionsOf(
  files: NonNullable<EmbeddedAssets['pglite']>,
  scratch: string,
): Promise<PGliteOptions> {
  const bundle = join(scratch, 'postgis.tar.gz')
  await Bun.write(bundle, Bun.file(files.postgisBundle))
  const extension: Extension = {
    name: postgis.name,
    setup: async (pg, options) => ({
      ...(await postgis.setup(pg, options)),
      bundlePath: pathToFileURL(bundle),
    }),
  }
  const pgliteWasmModule = await WebAssembly.compile(await Bun.file(files.wasm).arrayBuffer())
  // A Blob with the bytes in it, since PGlite compares the size and a file of the binary is read lazily.
  const fsBundle = new Blob([await Bun.file(files.data).arrayBuffer()])
  return { extensions: { postgis: extension }, pgliteWasmModule, fsBundle }
}
