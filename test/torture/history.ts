/** What happened, in order: whole in a file, the tail in memory for the report of a failure. And the rules broken. */
import { createWriteStream, mkdirSync, type WriteStream } from 'node:fs'
import { dirname } from 'node:path'

const TAIL_LINES = 60
const LINE_LENGTH_MAX = 1_500

export class History {
  readonly violations: string[] = []
  readonly counts = new Map<string, number>()
  /** Faults that were injected, by kind. */
  readonly faults = new Map<string, number>()
  readonly #file: WriteStream
  readonly #began = Date.now()
  readonly #tail: string[] = []

  constructor(readonly path: string) {
    mkdirSync(dirname(path), { recursive: true })
    this.#file = createWriteStream(path)
  }

  /** One event. `what` begins with a word that events of its kind share. */
  note(actor: string, what: string): void {
    const line = `${String(Date.now() - this.#began).padStart(7)} ${actor}: ${what}`.slice(0, LINE_LENGTH_MAX)
    this.#file.write(`${line}\n`)
    this.#tail.push(line)
    if (this.#tail.length > TAIL_LINES) this.#tail.shift()
  }

  /** An operation: noted and counted by its first word. */
  did(actor: string, what: string): void {
    this.count(what.split(' ', 1)[0] ?? what)
    this.note(actor, what)
  }

  /** A fault of this kind was injected: noted and counted. */
  fault(actor: string, kind: string, details = ''): void {
    this.faults.set(kind, (this.faults.get(kind) ?? 0) + 1)
    this.note(actor, `${kind} ${details}`)
  }

  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by)
  }

  /** A rule was broken. The run goes on to the next checkpoint, so that what follows can be read too. */
  violation(actor: string, what: string): void {
    this.violations.push(`${actor}: ${what}`)
    this.note(actor, `VIOLATION ${what}`)
  }

  get tail(): string {
    return this.#tail.join('\n')
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.#file.end(resolve))
  }
}
