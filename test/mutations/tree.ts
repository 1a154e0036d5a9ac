/** A copy of the sources and tests in a temporary folder, in which one file at a time is broken and mended again. */
import { cp, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Mutation, mutate } from './mutation.ts'

const ROOT = join(import.meta.dir, '../..')
const COPIED = [
  'src',
  'client',
  'demo',
  'test',
  'docs',
  'patches',
  'README.md',
  'package.json',
  'tsconfig.json',
]

/**
 * How long a wait in a test lasts before it counts as failed. Shorter than elsewhere, since most mutations end in one; longer
 * than the limits of a shared read and of a view's own together (2 and 15 s).
 */
const GIVE_UP_MS = 22_000

interface TestRun {
  readonly passed: boolean
  /** Names of the tests that failed; none if the run failed in another way. */
  readonly failed: readonly string[]
  readonly output: string
}

export class Tree implements AsyncDisposable {
  private constructor(
    readonly folder: string,
    private readonly databaseUrl: string,
  ) {}

  /** `databaseUrl`: a superuser's, for the tests' databases. */
  static async copy(databaseUrl: string): Promise<Tree> {
    const folder = await mkdtemp(join(tmpdir(), 'datum-mutations-'))
    for (const name of [...COPIED, 'bunfig.toml'])
      await cp(join(ROOT, name), join(folder, name), { recursive: true })
    await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
    return new Tree(folder, databaseUrl)
  }

  /** Does `work` with the mutation in place. */
  async mutated<T>(mutation: Mutation, work: () => Promise<T>): Promise<T> {
    const path = join(this.folder, mutation.file)
    const source = await Bun.file(path).text()
    await Bun.write(path, mutate(mutation, source))
    try {
      return await work()
    } finally {
      await Bun.write(path, source)
    }
  }

  async test(files: readonly string[], options: readonly string[] = []): Promise<TestRun> {
    const paths = files.map((file) => `./${file}`)
    const { code, output } = await this.#bun(['test', '--timeout', '60000', ...options, ...paths])
    const failed = [...output.matchAll(/^\(fail\) (.+?)(?: \[[\d.]+m?s\])?$/gm)].map(([, name = '']) => name)
    return { passed: code === 0, failed, output }
  }

  /** Runs a short torture; resolves to the first rule that was broken, null if none was. */
  async torture(): Promise<string | null> {
    const { code, output } = await this.#bun(['test/torture/main.ts', '--seeds', '165,1', '--rounds', '1'])
    if (code === 0) return null
    return /^seed \d+: BROKEN .*\n(.*)/m.exec(output)?.[1] ?? output.slice(-300)
  }

  async #bun(args: readonly string[]): Promise<{ code: number; output: string }> {
    const run = Bun.spawn([process.execPath, ...args], {
      cwd: this.folder,
      env: {
        ...process.env,
        DATUM_TEST_DATABASE_URL: this.databaseUrl,
        DATUM_TEST_GIVE_UP_MS: String(GIVE_UP_MS),
      },
      stdin: 'ignore',
      stdout: 'pipe',
      stderr: 'pipe',
    })
    const [stdout, stderr, code] = await Promise.all([
      new Response(run.stdout).text(),
      new Response(run.stderr).text(),
      run.exited,
    ])
    return { code, output: `${stdout}\n${stderr}` }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true })
  }
}
