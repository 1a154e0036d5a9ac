/**
 * What clients were told about their edits, to be held against the ledger that the database kept: each edit that was
 * called applied is in it once, each that was called rejected is not, and one whose fate nobody knows at most once.
 */
import type { Sql } from 'postgres'
import type { EditOutcome, Id, WriteMessage } from '../../src/wire/messages.ts'
import type { History } from './history.ts'
import type { TableName } from './model.ts'

type Fate = 'unknown' | 'applied' | 'rejected'

interface Entry {
  readonly actor: string
  readonly batch: string
  fate: Fate
  /** The row that it deletes: such an edit is found in the ledger by that, since it leaves no row that has its token. */
  deletes: string | null
}

/** Deletions of one row that are in the ledger lie between these. */
interface Deletions {
  applied: number
  unknown: number
}

export class EditBook {
  readonly #entries = new Map<string, Entry>()
  readonly #deletions = new Map<string, Deletions>()
  #last = 0

  constructor(private readonly history: History) {}

  /** A name for a new edit. Those of a batch are named in the order of its edits. */
  token(actor: string, batch: string): string {
    const token = `${actor}/${++this.#last}`
    this.#entries.set(token, { actor, batch, fate: 'unknown', deletes: null })
    return token
  }

  deletes(token: string, table: TableName, id: Id): void {
    const entry = this.#entries.get(token)
    if (entry !== undefined) entry.deletes = `${table}/${id}`
  }

  tokensOf(batch: string): string[] {
    return [...this.#entries].filter(([, entry]) => entry.batch === batch).map(([token]) => token)
  }

  told(token: string, fate: 'applied' | 'rejected'): void {
    const entry = this.#entries.get(token)
    if (entry !== undefined) entry.fate = fate
  }

  toldBatch({ batch }: WriteMessage, outcomes: readonly EditOutcome[]): void {
    for (const [index, token] of this.tokensOf(batch).entries()) {
      const outcome = outcomes[index]
      if (outcome !== undefined) this.told(token, outcome.status)
    }
  }

  /** Compares with the ledger. To be called when nothing is under way. */
  async check(sql: Sql): Promise<void> {
    const rows = await sql<{ token: string; times: number }[]>`
      select token, count(*)::int as times from ledger where token is not null group by token`
    const times = new Map(rows.map((row) => [row.token, row.times]))
    for (const [token, entry] of this.#entries) {
      this.history.count('edits checked')
      this.#entries.delete(token)
      if (entry.deletes !== null) {
        this.#countDeletion(entry.deletes, entry.fate)
        continue
      }
      const found = times.get(token) ?? 0
      const isRight = entry.fate === 'unknown' ? found <= 1 : found === (entry.fate === 'applied' ? 1 : 0)
      if (!isRight)
        this.history.violation(
          entry.actor,
          `I7: edit ${token} of ${entry.batch} is ${entry.fate}, applied ${found} times`,
        )
    }
    // Also those that were checked before.
    for (const row of rows) {
      if (row.times > 1)
        this.history.violation('ledger', `I7: edit ${row.token} was applied ${row.times} times`)
    }
    await this.#checkDeletions(sql)
    const forbidden = await sql<{ what: string }[]>`
      select coalesce(token, deleted) as what from ledger
       where claimed is not null and (was is distinct from claimed or becomes is distinct from claimed or unseen)`
    for (const { what } of forbidden)
      this.history.violation('ledger', `I2: edit ${what} was not the writer's to make`)
  }

  #countDeletion(row: string, fate: Fate): void {
    const known = this.#deletions.get(row) ?? { applied: 0, unknown: 0 }
    if (fate !== 'rejected') known[fate]++
    this.#deletions.set(row, known)
  }

  async #checkDeletions(sql: Sql): Promise<void> {
    const rows = await sql<{ deleted: string; times: number }[]>`
      select deleted, count(*)::int as times from ledger where deleted is not null group by deleted`
    const times = new Map(rows.map((row) => [row.deleted, row.times]))
    for (const row of new Set([...times.keys(), ...this.#deletions.keys()])) {
      const { applied, unknown } = this.#deletions.get(row) ?? { applied: 0, unknown: 0 }
      const found = times.get(row) ?? 0
      if (found < applied || found > applied + unknown) {
        const told = `${applied} times, and perhaps ${unknown} more`
        this.history.violation('ledger', `I7: ${row} was deleted ${found} times; clients were told ${told}`)
      }
    }
  }
}
