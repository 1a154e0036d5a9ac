/**
 * Holds cursors to their word: a view that was sent one must have held everything that was committed before it, and
 * what is called settled must have been in it. The database logs each version of each row with its transaction for this.
 */
import type { Sql } from 'postgres'
import type { Id, Row } from '../../src/wire/messages.ts'
import type { EditBook } from './edit-book.ts'
import type { History } from './history.ts'
import { isAllowed, type Policy, type UserClaims } from './model.ts'

/** A view that has the whole world in its box, at the moment at which it was sent a cursor. */
interface CursorSample {
  readonly actor: string
  readonly table: string
  readonly cursor: string
  readonly claims: UserClaims
  readonly policy: Policy
  readonly settled: readonly string[]
  /** Versions held, by id. */
  readonly held: ReadonlyMap<Id, bigint>
}

/** A client was sent one version of a row after another that has a higher number. */
interface Regression {
  readonly actor: string
  readonly table: string
  readonly id: Id
  readonly before: bigint
  readonly after: bigint
}

type Version = Row & {
  readonly id: Id
  readonly v: string
  readonly turn: string
  readonly shown: boolean
  readonly covered: boolean
}

/** Of so many cursors one is looked at, and no more than that in a round: each takes a query over the log. */
const ONE_OF = 4
const SAMPLES_MAX = 60

export class CursorChecker {
  #samples: CursorSample[] = []
  #regressions: Regression[] = []
  #seen = 0

  constructor(private readonly history: History) {}

  saw(sample: () => CursorSample): void {
    if (this.#seen++ % ONE_OF === 0 && this.#samples.length < SAMPLES_MAX) this.#samples.push(sample())
  }

  /** Whether it was really older is for the log to say. */
  regressed(regression: Regression): void {
    this.#regressions.push(regression)
  }

  /** To be called when nothing is under way, and before the book forgets its edits. */
  async check(sql: Sql, book: EditBook): Promise<void> {
    const samples = this.#samples
    this.#samples = []
    // Cursors from before a crash of Postgres count transactions that never were.
    const epochOf = ({ cursor }: CursorSample) => cursor.split('/')[0]
    const epoch = samples.length > 0 ? epochOf(samples.at(-1)!) : null
    for (const sample of samples) if (epochOf(sample) === epoch) await this.#checkOne(sql, sample, book)
    const regressions = this.#regressions
    this.#regressions = []
    for (const regression of regressions) await this.#checkRegression(sql, regression)
    await sql`delete from version_log a using version_log b where (a.tbl, a.id) = (b.tbl, b.id) and a.turn < b.turn`
  }

  /** Versions from before the last checkpoint are gone from the log, but for the newest of each row. */
  async #checkRegression(sql: Sql, { actor, table, id, before, after }: Regression): Promise<void> {
    const rows = await sql<{ v: string; turn: string }[]>`
      select v::text, turn::text from version_log where tbl = ${table} and id = ${id} and v::text in (${String(before)}, ${String(after)})`
    const turnOf = (version: bigint) => BigInt(rows.find(({ v }) => v === String(version))?.turn ?? 0)
    if (turnOf(after) <= turnOf(before))
      this.history.violation(actor, `an older version of ${table}/${id}: ${after} after ${before}`)
  }

  async #checkOne(sql: Sql, sample: CursorSample, book: EditBook): Promise<void> {
    const { actor, table, cursor, held, claims, policy, settled } = sample
    this.history.count('cursors checked')
    const broken = (rule: string) =>
      this.history.violation(actor, `cursor ${cursor} of ${table}, ${JSON.stringify(claims)}: ${rule}`)
    const snapshot = cursor.split('/')[1] ?? ''
    const versions = await sql<Version[]>`
      select id, v::text, turn::text, org_id, hidden, shown, pg_visible_in_snapshot(xid, ${snapshot}::pg_snapshot) as covered
        from version_log where tbl = ${table} order by id, version_log.turn desc`
    const byId = Map.groupBy(versions, ({ id }) => id)
    for (const [id, ofRow] of byId) {
      // The newest version that the cursor covers; where it covers none, there is nothing to say.
      const known = ofRow.find(({ covered }) => covered)
      if (known === undefined) continue
      const had = held.get(id)
      const isInView = known.shown && isAllowed(known, claims, new Set([policy]))
      if (had === undefined) {
        if (isInView && known === ofRow[0]) broken(`${id} of ${known.v} is not held`)
      } else if (String(had) === known.v) {
        if (!isInView) broken(`${id} is held, but was not to be seen by then`)
      } else {
        const turn = BigInt(ofRow.find(({ v }) => v === String(had))?.turn ?? 0)
        if (turn < BigInt(known.turn)) broken(`${id} is held as of ${had}, but was ${known.v} by then`)
      }
    }
    const tokens = settled.flatMap((batch) => book.tokensOf(batch))
    const early = await sql<{ token: string }[]>`
      select token from ledger where token in (select json_array_elements_text(${JSON.stringify(tokens)}::text::json))
        and not pg_visible_in_snapshot(xid, ${snapshot}::pg_snapshot)`
    for (const { token } of early) broken(`edit ${token} was called settled before it was in view`)
  }
}
