#!/usr/bin/env bun
import { existsSync } from 'node:fs'
import { chmod, copyFile, mkdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { BunPlugin } from 'bun'
import { withoutSignature } from './build-macho.ts'
import { bundlePage } from './demo/bundle-page.ts'
/**
 * `bun run build`: what is shipped, into `dist/`. The browser client with its declarations, the program that the npm
 * package runs, and a binary for each platform.
 *
 *   bun build.ts             all of it; exits 1 if any platform's binary could not be made
 *   bun build.ts --current   the client, the package's program, and the binary for this machine
 *   bun build.ts --package   the client and the package's program: what `npm pack` takes
 */
import manifest from './package.json' with { type: 'json' }
import { templatePath } from './src/db/embedded-template.ts'

const ROOT = import.meta.dir
const DIST = join(ROOT, 'dist')

/** The client is for pages that count their bytes. */
const CLIENT_GZIP_BYTES_MAX = 15 * 1024

/** Beside the package's program, for its embedded database. */
const TEMPLATE = 'postgres-template.tgz'

/** Names as in the files' names; each is also a runtime that Bun fetches from the npm registry. */
const PLATFORMS = ['linux-x64', 'linux-arm64', 'linux-x64-musl', 'darwin-arm64', 'darwin-x64'] as const
type Platform = (typeof PLATFORMS)[number]

async function main(flags: readonly string[]): Promise<number> {
  const unknown = flags.filter((flag) => flag !== '--current' && flag !== '--package')
  if (unknown.length > 0) throw new Error(`Unknown: ${unknown.join(' ')}. Known: --current, --package`)
  await mkdir(DIST, { recursive: true })
  await buildClient()
  await buildPackageProgram()
  if (flags.includes('--package')) return 0

  const platforms = flags.includes('--current') ? [currentPlatform()] : PLATFORMS
  const failed: Platform[] = []
  for (const platform of platforms) if (!(await buildBinary(platform))) failed.push(platform)
  if (failed.length === 0) return 0
  console.error(`\nNot built: ${failed.join(', ')}. Everything else is in dist/.`)
  return 1
}

/** dist/client: one ES module without imports, and its types. */
async function buildClient(): Promise<void> {
  const out = join(DIST, 'client')
  await rm(out, { recursive: true, force: true })
  await bundle({ entrypoints: [join(ROOT, 'client/index.ts')], outdir: out, target: 'browser', minify: true })
  const gzipBytes = Bun.gzipSync(await Bun.file(join(out, 'index.js')).bytes()).length
  report('client/index.js', `${(gzipBytes / 1024).toFixed(1)} KiB gzipped`)
  if (gzipBytes > CLIENT_GZIP_BYTES_MAX)
    throw new Error(`The client has ${gzipBytes} bytes gzipped, more than ${CLIENT_GZIP_BYTES_MAX}.`)
  await declareClient(out)
}

/** Declarations keep the tree of the sources, since the client shares the protocol's types with the server. */
async function declareClient(out: string): Promise<void> {
  const types = join(out, 'types')
  const tsc = Bun.spawn(
    [
      ...[process.execPath, 'x', 'tsc', '--ignoreConfig', join(ROOT, 'client/index.ts')],
      ...['--declaration', '--emitDeclarationOnly', '--rootDir', ROOT, '--outDir', types],
      ...['--target', 'ESNext', '--module', 'Preserve', '--moduleResolution', 'bundler', '--strict'],
      ...[
        '--lib',
        'ESNext,DOM,DOM.Iterable',
        '--types',
        '',
        '--allowImportingTsExtensions',
        '--skipLibCheck',
      ],
      ...['--exactOptionalPropertyTypes', '--noUncheckedIndexedAccess'],
    ],
    { cwd: ROOT, stdout: 'inherit', stderr: 'inherit' },
  )
  if ((await tsc.exited) !== 0) throw new Error('The declarations of the client could not be made.')
  for await (const name of new Bun.Glob('**/*.d.ts').scan(types)) {
    const file = Bun.file(join(types, name))
    const text = await file.text()
    // A declaration may not name a source file, but the module that was made of it.
    await Bun.write(file, text.replaceAll(/((?:from|import\()\s*['"]\.[^'"]*)\.ts(['"])/g, '$1.js$2'))
  }
  await Bun.write(join(out, 'index.d.ts'), "export * from './types/client/index.js'\n")
  report('client/index.d.ts')
}

/** dist/server: the program for Bun, beside its dependencies from the registry. Split, so that `--version` is quick. */
async function buildPackageProgram(): Promise<void> {
  const out = join(DIST, 'server')
  await rm(out, { recursive: true, force: true })
  await bundle({
    entrypoints: [join(ROOT, 'src/cli.ts')],
    outdir: out,
    naming: { entry: '[name].[ext]', chunk: '[name]-[hash].[ext]' },
    target: 'bun',
    // What is no dependency of the package is part of the program: postgres.js, which is patched here.
    external: Object.keys(manifest.dependencies).flatMap((name) => [name, `${name}/*`]),
    splitting: true,
    plugins: [
      await packaged(`
        import { fileURLToPath } from 'node:url'
        const template = fileURLToPath(new URL('./${TEMPLATE}', import.meta.url))
        export const EMBEDDED_ASSETS = { template, pglite: null }`),
    ],
  })
  await copyFile(await templatePath(), join(out, TEMPLATE))
  await chmod(join(out, 'cli.js'), 0o755)
  report('server/cli.js')
}

/** Returns false, and says why, if the platform's runtime cannot be had. */
async function buildBinary(platform: Platform): Promise<boolean> {
  const pglite = dirname(Bun.fileURLToPath(import.meta.resolve('@electric-sql/pglite')))
  const postgis = dirname(Bun.fileURLToPath(import.meta.resolve('@electric-sql/pglite-postgis')))
  const embed = (name: string, path: string) =>
    `import ${name} from ${JSON.stringify(path)} with { type: 'file' }\n`
  const outfile = join(DIST, `datum-server-${platform}`)
  try {
    await bundle({
      entrypoints: [join(ROOT, 'src/cli.ts')],
      target: 'bun',
      // A bunfig.toml in the folder where the server is started is no business of the server.
      compile: { target: `bun-${platform}`, outfile, autoloadBunfig: false },
      // Compiled ahead, so that a start does not parse four megabytes of source: 57 ms of CPU to ready instead of 132.
      // Only for this machine's kind: elsewhere a program with another platform's bytecode crashes (oven-sh/bun#18416).
      bytecode: platform === currentPlatform(),
      format: 'esm',
      plugins: [
        await packaged(
          embed('template', await templatePath()) +
            embed('wasm', join(pglite, 'pglite.wasm')) +
            embed('data', join(pglite, 'pglite.data')) +
            embed('postgisBundle', join(postgis, 'postgis.tar.gz')) +
            'export const EMBEDDED_ASSETS = { template, pglite: { wasm, data, postgisBundle } }',
        ),
      ],
    })
    if (platform === 'darwin-x64') await Bun.write(outfile, withoutSignature(await Bun.file(outfile).bytes()))
    await chmod(outfile, 0o755)
  } catch (cause) {
    console.error(`datum-server-${platform}: ${(cause as Error).message}`)
    return false
  }
  report(`datum-server-${platform}`, `${Math.round(Bun.file(outfile).size / 1e6)} MB`)
  return true
}

/** Puts what is made ahead in the place of the modules that make it at run time. */
async function packaged(embeddedAssets: string): Promise<BunPlugin> {
  const pageFiles = JSON.stringify(await bundlePage())
  return {
    name: 'packaged',
    setup(build) {
      build.onLoad({ filter: /[/\\]src[/\\]db[/\\]embedded-assets\.ts$/ }, () => ({
        contents: embeddedAssets,
        loader: 'js',
      }))
      build.onLoad({ filter: /[/\\]demo[/\\]page-files\.ts$/ }, () => ({
        contents: `export const readPageFiles = async () => ${pageFiles}`,
        loader: 'js',
      }))
    },
  }
}

async function bundle(options: Bun.BuildConfig): Promise<void> {
  const built = await Bun.build({ ...options, throw: false })
  if (!built.success)
    throw new Error(built.logs.map(String).join('\n') || 'the bundler failed without a word')
}

function currentPlatform(): Platform {
  const musl = process.platform === 'linux' && existsSync('/lib/ld-musl-x86_64.so.1') ? '-musl' : ''
  const platform = `${process.platform}-${process.arch}${musl}`
  const known = PLATFORMS.find((one) => one === platform)
  if (known === undefined)
    throw new Error(`There is no binary for ${platform}, only for ${PLATFORMS.join(', ')}.`)
  return known
}

function report(name: string, note = ''): void {
  console.log(`dist/${name}  ${note}`)
}

process.exit(await main(process.argv.slice(2)))
