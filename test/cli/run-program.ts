/** Runs `datum-server` as a process of its own, in a folder of its own, with nothing of this process' environment. */
import { join } from 'node:path'

/** The sources, or the compiled binary that DATUM_TEST_BINARY names. */
const PROGRAM: readonly string[] =
  process.env.DATUM_TEST_BINARY === undefined
    ? [process.execPath, join(import.meta.dir, '../../src/cli.ts')]
    : [process.env.DATUM_TEST_BINARY]

export interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export interface RunningProgram {
  /** Resolves with what the ready line says, or rejects with standard error if the program ends before. */
  ready(): Promise<{ readonly url: string; readonly line: string }>
  /** Resolves once standard error has said these words; rejects if it ends without. */
  said(words: string): Promise<void>
  kill(signal: NodeJS.Signals): void
  readonly pid: number
  readonly outcome: Promise<Outcome>
}

/** Starts it; the caller ends it. */
export function startProgram(
  folder: string,
  args: readonly string[],
  environment: Record<string, string> = {},
): RunningProgram {
  const child = Bun.spawn([...PROGRAM, ...args], {
    cwd: folder,
    env: { PATH: process.env.PATH ?? '', NO_COLOR: '1', ...environment },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const stdout = new Collected(child.stdout)
  const stderr = new Collected(child.stderr)
  return {
    async ready() {
      const line = await stdout.until((text) => /^.*(?=\n)/.exec(text)?.[0] ?? null)
      const url = /http:\/\/\S+/.exec(line ?? '')?.[0]
      if (line === null || url === undefined) throw new Error(`it did not get ready: ${await stderr.whole}`)
      return { url, line }
    },
    async said(words) {
      const said = await stderr.until((text) => (text.includes(words) ? words : null))
      if (said === null) throw new Error(`it did not say "${words}" but: ${await stderr.whole}`)
    },
    kill: (signal) => child.kill(signal),
    pid: child.pid,
    outcome: Promise.all([child.exited, stdout.whole, stderr.whole]).then(([code, stdout, stderr]) => ({
      code,
      stdout,
      stderr,
    })),
  }
}

/** Runs it to its end. */
export function runProgram(
  folder: string,
  args: readonly string[],
  environment: Record<string, string> = {},
): Promise<Outcome> {
  return startProgram(folder, args, environment).outcome
}

/** The text of a stream, while it comes and when it is whole. */
class Collected {
  readonly whole: Promise<string>
  #text = ''
  #look: () => void = () => {}
  #isWhole = false

  constructor(stream: ReadableStream<Uint8Array>) {
    this.whole = this.#read(stream)
  }

  /** The first thing that is not null to be found in the text; null if the stream ends without. One at a time. */
  until(find: (text: string) => string | null): Promise<string | null> {
    return new Promise((resolve) => {
      this.#look = () => {
        const found = find(this.#text)
        if (found !== null || this.#isWhole) resolve(found)
      }
      this.#look()
    })
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<string> {
    const decoder = new TextDecoder()
    for await (const chunk of stream) {
      this.#text += decoder.decode(chunk, { stream: true })
      this.#look()
    }
    this.#isWhole = true
    this.#look()
    return this.#text
  }
}
