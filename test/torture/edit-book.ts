/**
 * What clients were told about their edits, to be held against the ledger that the database kept: each edit that was
 * called applied is in it once, each that was called rejected is not, and one whose fate nobody knows at most once.
 */
import type { Sql } from 'postgres'
import type { EditOutcome, WriteMessage } from '../../src/wire/messages.ts'
import type { History } from './history.ts'

interface Entry {
  readonly actor: string
  readonly batch: string
  fate: 'unknown' | 'applied' | 'rejected'
}

export class EditBook {
  readonly #entries = new Map<string, Entry>()
  #last = 0

  constructor(private readonly history: History) {}

  /** A name for a new edit. */
  token(actor: string, batch: string): string {
    const token = `${actor}/${++this.#last}`
    this.#entries.set(token, { actor, batch, fate: 'unknown' })
    return token
  }

  tokensOf(batch: string): string[] {
    return [...this.#entries].filter(([, entry]) => entry.batch === batch).map(([token]) => token)
  }

  told(token: string, fate: 'applied' | 'rejected'): void {
    const entry = this.#entries.get(token)
    if (entry !== undefined) entry.fate = fate
  }

  toldBatch({ edits }: WriteMessage, outcomes: readonly EditOutcome[]): void {
    edits.forEach((edit, index) => {
      const outcome = outcomes[index]
      const token = edit.op === 'delete' ? undefined : edit.columns.token
      if (outcome !== undefined && typeof token === 'string') this.told(token, outcome.status)
    })
  }

  /** Compares with the ledger. To be called when nothing is under way. */
  async check(sql: Sql): Promise<void> {
    const rows = await sql<{ token: string; times: number; xids: number }[]>`
      select token, count(*)::int as times, count(distinct xid)::int as xids from ledger where token is not null group by token`
    const times = new Map(rows.map((row) => [row.token, row.times]))
    for (const [token, { actor, batch, fate }] of this.#entries) {
      const found = times.get(token) ?? 0
      const isRight = fate === 'unknown' ? found <= 1 : found === (fate === 'applied' ? 1 : 0)
      if (!isRight)
        this.history.violation(actor, `edit ${token} of ${batch} is ${fate}, applied ${found} times`)
      this.history.count('edits checked')
      this.#entries.delete(token)
    }
    // Also those that were checked before.
    for (const row of rows) {
      if (row.times > 1) this.history.violation('ledger', `edit ${row.token} was applied ${row.times} times`)
    }
    const forbidden = await sql<{ token: string }[]>`
      select token from ledger where claimed is not null and (was is distinct from claimed or becomes is distinct from claimed)`
    for (const { token } of forbidden)
      this.history.violation('ledger', `edit ${token} was not the writer's to make`)
  }
}
