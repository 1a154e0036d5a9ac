/**
 * How large a table's rows are, as far as anybody has seen: what keeps a read within memory when it is by count that
 * Postgres is asked.
 */

/** Before the first row was seen: large, so that the first reads are small. */
const FIRST_GUESS_CHARACTERS = 8 * 1024

export class RowSize {
  #average = FIRST_GUESS_CHARACTERS

  /** Takes what a read has brought. Grows at once and shrinks slowly, since too small a guess is what costs memory. */
  saw(rows: readonly { readonly json: string }[]): void {
    if (rows.length === 0) return
    const average = rows.reduce((sum, { json }) => sum + json.length, 0) / rows.length
    this.#average = Math.max(average, (this.#average + average) / 2, 1)
  }

  /** How many rows make about so many characters: at least one. */
  rowsIn(characters: number): number {
    return Math.max(1, Math.floor(characters / this.#average))
  }
}
