/** The servers under torture: processes of their own, killed and started again, whose words are read for stack traces. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type RunningProgram, startProgram } from '../cli/run-program.ts'
import { TEST_SECRET } from '../support/token.ts'
import { freePort } from './cluster.ts'
import type { History } from './history.ts'
import { CONFIG_YAML } from './model.ts'

/** What no server may ever say. */
const ALARMING =
  /^\s+at .*\(?.*:\d+|nhandled|TypeError|RangeError|ReferenceError|made a mistake|session failed|failed as a whole|panic|Segmentation/m

export class ServerSlot {
  readonly port = freePort()
  readonly url = `ws://127.0.0.1:${this.port}/ws`
  #program: RunningProgram | null = null
  #expectsEnd = false
  readonly #killWithTorture = () => this.#program?.kill('SIGKILL')

  constructor(
    readonly name: string,
    private readonly folder: string,
    private readonly databaseUrl: string,
    private readonly history: History,
  ) {
    // However the torture ends (main.ts sees to it that signals end it too), its servers end with it.
    process.once('exit', this.#killWithTorture)
  }

  /** Starts it, again and again while it says that it cannot: a supervisor does the same while Postgres is away. */
  async start(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const environment = {
        DATABASE_URL: this.databaseUrl,
        JWT_SECRET: new TextDecoder().decode(TEST_SECRET),
      }
      const program = startProgram(this.folder, ['serve', '-port', String(this.port)], environment)
      try {
        await program.ready()
        this.#watch(program)
        return
      } catch (error) {
        this.#read((error as Error).message)
        program.kill('SIGKILL')
        await program.outcome
        if (attempt === 60) throw error
        await Bun.sleep(500)
      }
    }
  }

  /** Resolves when it has ended; for SIGTERM that must be in time and in order. */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const program = this.#program
    if (program === null) return
    this.#expectsEnd = true
    program.kill(signal)
    const { code } = await program.outcome
    if (signal === 'SIGTERM' && code !== 0)
      this.history.violation(this.name, `SIGTERM ended with code ${code}`)
    this.#program = null
  }

  /** Nothing of it is left. */
  async close(): Promise<void> {
    await this.end('SIGTERM')
    process.off('exit', this.#killWithTorture)
  }

  /** A machine that stalls while something else happens. */
  async freeze(during: () => Promise<unknown>): Promise<void> {
    const program = this.#program
    program?.kill('SIGSTOP')
    try {
      await during()
    } finally {
      program?.kill('SIGCONT')
    }
  }

  #watch(program: RunningProgram): void {
    this.#program = program
    this.#expectsEnd = false
    void program.outcome.then(({ code, stderr }) => {
      this.#read(stderr)
      if (!this.#expectsEnd)
        this.history.violation(this.name, `ended by itself with code ${code}\n${stderr.slice(-2_000)}`)
    })
  }

  #read(stderr: string): void {
    for (const line of stderr.split('\n').slice(-200))
      if (line !== '') this.history.note(this.name, `says ${line}`)
    if (ALARMING.test(stderr))
      this.history.violation(this.name, `says ${ALARMING.exec(stderr)?.[0]}\n${stderr.slice(-2_000)}`)
  }
}

export interface Servers extends AsyncDisposable {
  readonly slots: readonly ServerSlot[]
}

export async function startServers(count: number, databaseUrl: string, history: History): Promise<Servers> {
  const folder = await mkdtemp(join(tmpdir(), 'datum-torture-server-'))
  await writeFile(join(folder, 'datum.yaml'), CONFIG_YAML)
  const slots = Array.from(
    { length: count },
    (_, n) => new ServerSlot(`server ${n}`, folder, databaseUrl, history),
  )
  await Promise.all(slots.map((slot) => slot.start()))
  return {
    slots,
    async [Symbol.asyncDispose]() {
      await Promise.all(slots.map((slot) => slot.close()))
      await rm(folder, { recursive: true, force: true })
    },
  }
}
