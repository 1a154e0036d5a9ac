/** Puts the figures of a run into docs/BENCHMARKS.md, between its two markers, and its pictures beside it; the rest is written by hand. */
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import type { Result } from './main.ts'
import { plot } from './plot.ts'
import { type Cells, cellsOf } from './report.ts'

const PAGE = join(import.meta.dir, '../docs/BENCHMARKS.md')
const PICTURES = join(import.meta.dir, '../docs/bench')
const BEGIN = '<!-- figures: made by `bun run bench --markdown` -->'
const END = '<!-- end of figures -->'

export async function writeBenchmarksPage(results: readonly Result[]): Promise<void> {
  const page = await Bun.file(PAGE).text()
  const [before, rest = ''] = page.split(BEGIN)
  const [, after] = rest.split(END)
  if (after === undefined) throw new Error(`docs/BENCHMARKS.md has lost its markers ${BEGIN} and ${END}`)
  for (const { row, figures } of results) {
    const picture = plot(row.name, figures)
    if (picture !== null) await Bun.write(join(PICTURES, `${row.name}.svg`), picture)
  }
  await Bun.write(PAGE, `${before}${BEGIN}\n${figuresOf(results)}\n${END}${after}`)
}

function figuresOf(results: readonly Result[]): string {
  const head = ['row', 'of', 'measured', 'floor', 'ratio', 'rounds', 'must be', 'met']
  const lines = cellsOf(results).map((cells: Cells) => `| ${Object.values(cells).join(' | ')} |`)
  const [cpu] = cpus()
  const machine = `${cpus().length} × ${cpu?.model ?? 'unknown CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Bun ${Bun.version}.`
  return [
    '',
    machine,
    '',
    `| ${head.join(' | ')} |`,
    `|${head.map(() => '---|').join('')}`,
    ...lines,
    '',
  ].join('\n')
}
