/**
 * Puts the figures of a run of all rows into the documents, between markers, and the pictures beside them; the rest is
 * written by hand. Those of `processes` go into docs/SCALING.md, which plans with them, all others into docs/BENCHMARKS.md.
 */
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { plot } from './plot.ts'
import { type Cells, cellsOf, TITLES } from './report.ts'
import type { Result } from './row.ts'
import { processes } from './rows/processes.ts'

const DOCUMENTS = join(import.meta.dir, '../docs')

/** A page, and what stands between two of its lines. */
interface Section {
  readonly page: string
  readonly begin: string
  readonly end: string
  readonly content: (results: readonly Result[]) => string
}

export const SECTIONS: readonly Section[] = [
  {
    page: 'BENCHMARKS.md',
    begin: '<!-- figures: made by `bun run bench --markdown` -->',
    end: '<!-- end of figures -->',
    content: (results) =>
      `${machine()}\n\n${tableOf(TITLES, cellsOf(results.filter(({ row }) => row !== processes)))}`,
  },
  {
    page: 'SCALING.md',
    begin: '<!-- processes: made by `bun run bench --markdown` -->',
    end: '<!-- end of processes -->',
    content: (results) =>
      tableOf(
        SCALING_COLUMNS,
        cellsOf(results.filter(({ row }) => row === processes)).map(withoutEmptyRatio),
      ),
  },
]

const { of, measured, ratio, spread } = TITLES
const SCALING_COLUMNS: Readonly<Partial<Cells>> = { of, measured, floor: 'compared with', ratio, spread }

/** Writes `results`, which must be of all rows, into every page. */
export async function writePages(results: readonly Result[]): Promise<void> {
  for (const { row, figures } of results) {
    const picture = plot(row.name, figures)
    if (picture !== null) await Bun.write(join(DOCUMENTS, `bench/${row.name}.svg`), picture)
  }
  for (const section of SECTIONS) {
    const path = join(DOCUMENTS, section.page)
    await Bun.write(path, withSection(await Bun.file(path).text(), section, results))
  }
}

/** The page's text with the section made anew. Throws where the page has lost a marker. */
export function withSection(
  text: string,
  { page, begin, end, content }: Section,
  results: readonly Result[],
): string {
  const [before, rest = ''] = text.split(begin)
  const [, after] = rest.split(end)
  if (after === undefined) throw new Error(`docs/${page} has lost its markers ${begin} and ${end}`)
  return `${before}${begin}\n\n${content(results)}\n\n${end}${after}`
}

function machine(): string {
  const [cpu] = cpus()
  return `${cpus().length} × ${cpu?.model ?? 'unknown CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Bun ${Bun.version}.`
}

function tableOf(columns: Readonly<Partial<Cells>>, lines: readonly Cells[]): string {
  const keys = Object.keys(columns) as (keyof Cells)[]
  const row = (cells: Readonly<Partial<Cells>>) => `| ${keys.map((key) => cells[key]).join(' | ')} |`
  return [row(columns), `|${keys.map(() => '---|').join('')}`, ...lines.map(row)].join('\n')
}

/** What was compared with nothing would have itself for its ratio. */
function withoutEmptyRatio(cells: Cells): Cells {
  return cells.floor === '' ? { ...cells, ratio: '' } : cells
}
