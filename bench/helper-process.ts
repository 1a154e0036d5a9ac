/**
 * Processes that the benchmark starts for work whose cost is not to be mixed up with others': clients, writers, floors.
 * The benchmark calls their commands by name; a helper's file says what it knows with {@link answerCommands}.
 */

/** The other side of {@link answerCommands}. */
export interface Helper extends AsyncDisposable {
  readonly pid: number
  /** Resolves to what the command comes to; rejects with its error, or if the helper ends. */
  call<T = void>(command: string, argument?: unknown): Promise<T>
}

interface Call {
  readonly id: number
  readonly command: string
  readonly argument: unknown
}

interface Answer {
  readonly id: number
  readonly value?: unknown
  readonly error?: string
}

/** Starts the program of a file (a path) with nothing of this process's environment but PATH and what is given. */
export function startHelper(file: string, environment: Record<string, string> = {}): Helper {
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>()
  let calls = 0
  const child = Bun.spawn([process.execPath, file], {
    env: { PATH: process.env.PATH ?? '', ...environment },
    stdin: 'ignore',
    stdout: 'inherit',
    stderr: 'inherit',
    ipc({ id, value, error }: Answer) {
      const call = waiting.get(id)
      waiting.delete(id)
      if (error === undefined) call?.resolve(value)
      else call?.reject(new Error(error))
    },
    onExit(_, code) {
      for (const { reject } of waiting.values()) reject(new Error(`${file} ended with code ${code}`))
    },
  })
  return {
    pid: child.pid,
    call<T>(command: string, argument?: unknown) {
      const id = ++calls
      const { promise, ...settle } = Promise.withResolvers<unknown>()
      waiting.set(id, settle)
      child.send({ id, command, argument } satisfies Call)
      return promise as Promise<T>
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await child.exited
    },
  }
}

/** In a helper: answers calls until the benchmark, or its connection, is gone. */
export function answerCommands(commands: Readonly<Record<string, (argument: never) => unknown>>): void {
  process.on('message', async ({ id, command, argument }: Call) => {
    let answer: Answer
    try {
      const run = commands[command]
      if (run === undefined) throw new Error(`there is no command ${command}`)
      answer = { id, value: await run(argument as never) }
    } catch (error) {
      answer = { id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) }
    }
    process.send?.(answer)
  })
  process.on('disconnect', () => process.exit(0))
}
