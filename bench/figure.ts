/** Makes figures of rounds: medians, and the ratio of the medians. */
import type { Figure } from './row.ts'
import { median } from './statistics.ts'

/** What one round measured, and what its floor or rival did. */
export type Pair = readonly [measured: number, floor: number]

interface FigureOptions {
  readonly of: string
  readonly unit: string
  readonly rounds: readonly Pair[]
  readonly mustBe: Figure['mustBe']
  /** How a round's two numbers become its ratio. Default: `×`, measured over floor. */
  readonly as?: 'times' | 'percent' | 'difference'
  readonly growth?: NonNullable<Figure['growth']>
}

export function figure({ of, unit, rounds, mustBe, as = 'times', growth }: FigureOptions): Figure {
  const measured = median(rounds.map(([one]) => one))
  const floor = median(rounds.map(([, one]) => one))
  const ratioOf = ([one, other]: Pair) =>
    as === 'difference' ? one - other : (as === 'percent' ? 100 : 1) * (one / other)
  return {
    of,
    unit,
    measured,
    floor,
    ratio: ratioOf([measured, floor]),
    ratioUnit: { times: '×', percent: '%', difference: unit }[as],
    mustBe,
    rounds: rounds.map(ratioOf),
    ...(growth !== undefined && { growth }),
  }
}

/** A number that stands for itself. */
export function plainFigure(
  of: string,
  unit: string,
  rounds: readonly number[],
  mustBe: Figure['mustBe'],
): Figure {
  const measured = median(rounds)
  return { of, unit, measured, floor: Number.NaN, ratio: measured, ratioUnit: unit, mustBe, rounds }
}
