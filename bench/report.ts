/** Results as text: the table on the terminal, and the cells that `markdown.ts` puts into the document. */
import { type Figure, isMet, type Result } from './row.ts'

export interface Cells {
  readonly row: string
  readonly of: string
  readonly measured: string
  readonly floor: string
  readonly ratio: string
  readonly spread: string
  readonly mustBe: string
  readonly met: string
}

export function cellsOf(results: readonly Result[]): readonly Cells[] {
  return results.flatMap(({ row, figures }) =>
    figures.map((figure) => ({
      row: row.name,
      of: figure.of,
      measured: `${number(figure.measured)} ${figure.unit}`.trim(),
      floor: Number.isFinite(figure.floor) ? `${number(figure.floor)} ${figure.unit}`.trim() : '',
      ratio: withUnit(figure, figure.ratio),
      spread: `${number(Math.min(...figure.rounds))} to ${number(Math.max(...figure.rounds))}`,
      mustBe: limitOf(figure),
      met: { true: 'yes', false: 'NO', null: '' }[String(isMet(figure))] ?? '',
    })),
  )
}

export const TITLES: Cells = {
  row: 'row',
  of: 'of',
  measured: 'measured',
  floor: 'floor',
  ratio: 'ratio',
  spread: 'rounds',
  mustBe: 'must be',
  met: 'met',
}

export function textTable(results: readonly Result[]): string {
  const lines = [TITLES, ...cellsOf(results)]
  const widths = Object.fromEntries(
    Object.keys(TITLES).map((key) => [
      key,
      Math.max(...lines.map((cells) => cells[key as keyof Cells].length)),
    ]),
  )
  return lines
    .map((cells) =>
      Object.entries(cells)
        .map(([key, text]: [string, string]) => text.padEnd(widths[key]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

function limitOf(figure: Figure): string {
  if (figure.mustBe === null) return ''
  return 'atMost' in figure.mustBe
    ? `≤ ${withUnit(figure, figure.mustBe.atMost)}`
    : `≥ ${withUnit(figure, figure.mustBe.atLeast)}`
}

function withUnit({ ratioUnit }: Figure, value: number): string {
  return `${number(value)}${/^[×%]?$/.test(ratioUnit) ? '' : ' '}${ratioUnit}`
}

/** Three significant digits, and no fraction where the number is large. */
function number(value: number): string {
  if (!Number.isFinite(value)) return '–'
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString('en')
  return String(Number(value.toPrecision(3)))
}
