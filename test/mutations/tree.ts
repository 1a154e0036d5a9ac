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

/** How long a wait in a test lasts before it counts as failed. Half of what it is elsewhere: most mutations end in one. */
const GIVE_UP_MS = 15_000

export interface TestRun {
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

  /** Runs the tests with the mutation in place, up to the first that fails. */
  async testMutated(mutation: Mutation): Promise<TestRun> {
    const path = join(this.folder, mutation.file)
    const source = await Bun.file(path).text()
    await Bun.write(path, mutate(mutation, source))
    try {
      return await this.test(mutation.tests, ['--bail', ...(mutation.only ? ['-t', mutation.only] : [])])
    } finally {
      await Bun.write(path, source)
    }
  }

  async test(files: readonly string[], options: readonly string[] = []): Promise<TestRun> {
    const run = Bun.spawn(
      [process.execPath, 'test', '--timeout', '60000', ...options, ...files.map((file) => `./${file}`)],
      {
        cwd: this.folder,
        env: {
          ...process.env,
          DATUM_TEST_DATABASE_URL: this.databaseUrl,
          DATUM_TEST_GIVE_UP_MS: String(GIVE_UP_MS),
        },
        stdin: 'ignore',
        stdout: 'pipe',
        stderr: 'pipe',
      },
    )
    const [stdout, stderr, code] = await Promise.all([
      new Response(run.stdout).text(),
      new Response(run.stderr).text(),
      run.exited,
    ])
    const output = `${stdout}\n${stderr}`
    const failed = [...output.matchAll(/^\(fail\) (.+?)(?: \[[\d.]+m?s\])?$/gm)].map(([, name = '']) => name)
    return { passed: code === 0, failed, output }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true })
  }
}
