/**
 * A helper process that is the application: it changes rows with SQL, as its owner, and knows nothing of datum.
 */
import postgres, { type Sql } from 'postgres'
import { now } from '../clock.ts'
import { answerCommands } from '../helper-process.ts'

interface BurstArgument {
  /** The numbers (column `n`) of the rows to change, one update and one transaction each. */
  readonly rows: readonly number[]
  /** What the first update writes to `rev`; the others count on. */
  readonly from: number
}

export interface Burst {
  readonly began: number
  /** When the last commit was confirmed. */
  readonly ended: number
}

interface TrickleArgument {
  readonly perSecond: number
  readonly count: number
  /** Rows `0` to this one take turns. */
  readonly rows: number
  /** The statement: `$1` is the row's number. */
  readonly statement: string
}

let sql: Sql | null = null

answerCommands({
  async connect({ url }: { url: string }): Promise<void> {
    await sql?.end()
    sql = postgres(url, { max: 1, onnotice: () => {}, fetch_types: false })
    // Prepares what `burst` uses.
    await sql`update features set rev = ${-1}::int where n = ${-1}::int`
  },

  /** As fast as one session takes them: prepared, pipelined, each committed by itself. */
  async burst({ rows, from }: BurstArgument): Promise<Burst> {
    const began = now()
    await Promise.all(
      rows.map((n, index) =>
        sql!`update features set rev = ${from + index}::int where n = ${n}::int`.execute(),
      ),
    )
    return { began, ended: now() }
  },

  /** Evenly, one after the other. */
  async trickle({ perSecond, count, rows, statement }: TrickleArgument): Promise<void> {
    const began = performance.now()
    for (let index = 0; index < count; index++) {
      await Bun.sleep(began + (index * 1_000) / perSecond - performance.now())
      await sql!.unsafe(statement, [index % rows], { prepare: true })
    }
  },
})
