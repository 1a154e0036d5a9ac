/**
 * The wire between postgres.js and the Postgres in this process: bytes written to the stream are run by PGlite, and
 * what it answers can be read. `embedded.ts` hands such streams to postgres.js as its `socket`.
 */
import { Duplex } from 'node:stream'
import type { PGlite } from '@electric-sql/pglite'

/** A simple-query message (Postgres documentation, "Message Formats": 'Q', length, text, NUL). */
const ROLLBACK = Buffer.from([0x51, 0, 0, 0, 13, ...Buffer.from('rollback\0')])

/** First byte of the Terminate message, which ends the stream but not the database. */
const TERMINATE = 0x58

export class EmbeddedSocket extends Duplex {
  readonly #pglite: PGlite

  constructor(pglite: PGlite) {
    super()
    this.#pglite = pglite
  }

  /** postgres.js asks a socket for this before it says goodbye. */
  get readyState(): 'open' | 'closed' {
    return this.destroyed ? 'closed' : 'open'
  }

  /** Runs whole messages: postgres.js never splits one over two writes. Returns when Postgres has answered them all. */
  override _write(messages: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    const answered = messages[0] === TERMINATE ? Promise.resolve([]) : execute(this.#pglite, messages)
    answered.then(
      (answers) => {
        for (const answer of answers) this.push(answer)
        done()
      },
      (cause: Error) => done(cause),
    )
  }

  override _read(): void {}

  override _final(done: () => void): void {
    done()
    this.destroy()
  }

  /** All streams share Postgres' one session, so a stream that breaks off must not leave its transaction open. */
  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const isOpen = !this.#pglite.closed && this.#pglite.isInTransaction()
    const ended = isOpen ? execute(this.#pglite, ROLLBACK) : Promise.resolve([])
    ended.then(
      () => done(error),
      () => done(error),
    )
  }
}

/**
 * The answers come as views of memory that Postgres reuses, so they are copied; and they are handed on only once
 * Postgres has returned, since whoever reads them may write the next message at once.
 */
async function execute(pglite: PGlite, messages: Buffer): Promise<Buffer[]> {
  const answers: Buffer[] = []
  // Not execProtocolRaw: that also parses every row into an array that is never emptied.
  await pglite.execProtocolRawStream(messages, {
    syncToFs: false,
    onRawData: (bytes) => answers.push(Buffer.from(bytes)),
  })
  return answers
}
