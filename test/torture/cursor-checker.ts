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
export interface CursorSample {
  readonly actor: string
  readonly table: string
  readonly cursor: string
  readonly claims: UserClaims
  readonly policy: Policy
  readonly settled: readonly string[]
  /** Versions held, by id. */
  readonly held: ReadonlyMap<Id, bigint>
}

type Version = Row & {
  readonly id: Id
  readonly v: string
  readonly shown: boolean
  readonly newest: string
  readonly covered: boolean
}

/** Of so many cursors one is looked at, and no more than that in a round: each takes a query over the log. */
const ONE_OF = 4
const SAMPLES_MAX = 60

export class CursorChecker {
  #samples: CursorSample[] = []
  #seen = 0

  constructor(private readonly history: History) {}

  saw(sample: () => CursorSample): void {
    if (this.#seen++ % ONE_OF === 0 && this.#samples.length < SAMPLES_MAX) this.#samples.push(sample())
  }

  /** To be called when nothing is under way, and before the book forgets its edits. */
  async check(sql: Sql, book: EditBook): Promise<void> {
    const samples = this.#samples
    this.#samples = []
    // Cursors from before a crash of Postgres count transactions that never were.
    const epochOf = ({ cursor }: CursorSample) => cursor.split('/')[0]
    const epoch = samples.length > 0 ? epochOf(samples.at(-1)!) : null
    for (const sample of samples) if (epochOf(sample) === epoch) await this.#checkOne(sql, sample, book)
    await sql`delete from version_log a using version_log b where (a.tbl, a.id) = (b.tbl, b.id) and a.v < b.v`
  }

  async #checkOne(sql: Sql, sample: CursorSample, book: EditBook): Promise<void> {
    const { actor, table, cursor, held, claims, policy, settled } = sample
    this.history.count('cursors checked')
    const broken = (rule: string) =>
      this.history.violation(actor, `cursor ${cursor} of ${table}, ${JSON.stringify(claims)}: ${rule}`)
    const snapshot = cursor.split('/')[1] ?? ''
    // The newest version that the cursor covers; where it covers none, there is nothing to say.
    const versions = await sql<Version[]>`
      select distinct on (id) id, v::text, org_id, hidden, shown, (max(v) over (partition by id))::text as newest,
             pg_visible_in_snapshot(xid, ${snapshot}::pg_snapshot) as covered
        from version_log where tbl = ${table} order by id, covered desc, v desc`
    for (const version of versions) {
      if (!version.covered) continue
      const [known, had] = [BigInt(version.v), held.get(version.id)]
      const isInView = version.shown && isAllowed(version, claims, new Set([policy]))
      if (had !== undefined && had < known)
        broken(`${version.id} is held as of ${had}, but was ${known} by then`)
      if (had !== undefined && had === known && !isInView)
        broken(`${version.id} is held, but was not to be seen by then`)
      if (had === undefined && isInView && BigInt(version.newest) === known)
        broken(`${version.id} of ${known} is not held`)
    }
    const tokens = settled.flatMap((batch) => book.tokensOf(batch))
    const early = await sql<{ token: string }[]>`
      select token from ledger where token in (select json_array_elements_text(${JSON.stringify(tokens)}::text::json))
        and not pg_visible_in_snapshot(xid, ${snapshot}::pg_snapshot)`
    for (const { token } of early) broken(`edit ${token} was called settled before it was in view`)
  }
}
