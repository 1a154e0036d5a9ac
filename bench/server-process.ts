/** The server under measurement, as a process of its own: started, looked at from outside, and stopped. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { TEST_SECRET } from '../test/support/token.ts'

export interface ServerProcess extends AsyncDisposable {
  readonly pid: number
  /** Where the socket is. */
  readonly socketUrl: string
  /** A counter of /metrics, by its name with labels. */
  metric(name: string): Promise<number>
}

interface ServerOptions {
  readonly databaseUrl: string
  /** What comes before the arguments. Default: Bun with the sources. */
  readonly program?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
}

const CONFIG = `auth:
  jwt_algorithm: HS256
log_level: warn
`

const SOURCES = [process.execPath, ...profiling(), join(import.meta.dir, '../src/cli.ts')]

/** Resolves when the server says that it is ready. */
export async function startServer({
  databaseUrl,
  program = SOURCES,
  environment = {},
}: ServerOptions): Promise<ServerProcess> {
  const folder = await mkdtemp(join(tmpdir(), 'datum-bench-server-'))
  await writeFile(join(folder, 'datum.yaml'), CONFIG)
  const child = Bun.spawn([...program, 'serve', '--port', '0', '--host', '127.0.0.1'], {
    cwd: folder,
    env: {
      PATH: process.env.PATH ?? '',
      NO_COLOR: '1',
      DATABASE_URL: databaseUrl,
      JWT_SECRET: new TextDecoder().decode(TEST_SECRET),
      ...environment,
    },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'inherit',
  })
  // However the benchmark ends, its servers end with it.
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  const decoder = new TextDecoder()
  let said = ''
  for await (const chunk of child.stdout) {
    said += decoder.decode(chunk, { stream: true })
    if (said.includes('\n')) break
  }
  const url = /http:\/\/\S+/.exec(said)?.[0]
  if (url === undefined) throw new Error('the server did not get ready')
  return {
    pid: child.pid,
    socketUrl: `${url.replace(/^http/, 'ws')}/ws`,
    async metric(name) {
      const text = await (await fetch(`${url}/metrics`)).text()
      const line = text.split('\n').find((one) => one.startsWith(`${name} `))
      return Number(line?.slice(name.length + 1) ?? Number.NaN)
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM')
      await child.exited
      process.off('exit', kill)
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** With DATUM_BENCH_PROFILE=FOLDER each server leaves a CPU profile there when it stops. */
function profiling(): string[] {
  const folder = process.env.DATUM_BENCH_PROFILE
  return folder === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${folder}`]
}
