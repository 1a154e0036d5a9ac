/**
 * What a row of the table of figures is. Each file in `rows/` exports one; `main.ts` runs them, `report.ts` prints what
 * they found.
 */
import type { World } from './world.ts'

/** One thing that was measured, against a floor or a rival that was measured in the same run. */
export interface Figure {
  /** What it is of: `100 sockets`. */
  readonly of: string
  /** Medians over the rounds, in `unit`. */
  readonly measured: number
  readonly floor: number
  readonly unit: string
  /** {@link measured} in terms of {@link floor}, as the row defines it: a quotient, or a difference. */
  readonly ratio: number
  /** How the ratio is written after its number: `×`, `%`, or a unit. */
  readonly ratioUnit: string
  readonly mustBe: { readonly atMost: number } | { readonly atLeast: number } | null
  /** Where it stands in the row's plot: the line it belongs to, and how many sockets or rows it is of. */
  readonly growth?: { readonly line: string; readonly size: number }
  /** The ratio of each round, to see how far they are apart. */
  readonly rounds: readonly number[]
}

export interface Row {
  readonly name: string
  /** What the row answers, for a reader. */
  readonly question: string
  /** What it is measured against, in one sentence. */
  readonly floor: string
  /** The target in words. */
  readonly mustBe: string
  run(world: World): Promise<readonly Figure[]>
}

/** What became of a row that was measured. */
export interface Result {
  readonly row: Row
  readonly figures: readonly Figure[]
}

export function isMet({ ratio, mustBe }: Figure): boolean | null {
  if (mustBe === null) return null
  return 'atMost' in mustBe ? ratio <= mustBe.atMost : ratio >= mustBe.atLeast
}
