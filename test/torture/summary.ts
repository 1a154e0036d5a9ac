/** What came of many seeds, as Markdown: a line for each, their sums, and the faults by kind. */
import type { History } from './history.ts'

export interface SeedResult {
  readonly seed: number
  readonly rounds: number
  readonly seconds: number
  readonly history: History
}

const COUNTED = [
  'frames',
  'rows',
  'gone ids',
  'edits checked',
  'cursors checked',
  'resumed',
  'resume refused',
]
const HEADINGS = ['seed', 'rounds', 'minutes', ...COUNTED, 'faults', 'violations']

export function summary(results: readonly SeedResult[]): string {
  const lines = results.map(lineOf)
  const sums = HEADINGS.map((_, column) => sum(lines.map((line) => Number(line[column]))))
  const total = ['all', ...sums.slice(1).map((value, index) => (index === 1 ? value.toFixed(1) : value))]
  const faults = new Map<string, number>()
  for (const { history } of results)
    for (const [kind, count] of history.faults) faults.set(kind, (faults.get(kind) ?? 0) + count)
  const byKind = [...faults].sort(([, a], [, b]) => b - a)
  return [
    table([HEADINGS, ...lines, ...(lines.length > 1 ? [total] : [])]),
    table([['fault', 'times'], ...byKind]),
  ].join('\n\n')
}

function lineOf({ seed, rounds, seconds, history }: SeedResult): (string | number)[] {
  const counts = COUNTED.map((what) => history.counts.get(what) ?? 0)
  const faults = sum([...history.faults.values()])
  return [seed, rounds, (seconds / 60).toFixed(1), ...counts, faults, history.violations.length]
}

function table(lines: readonly (readonly (string | number)[])[]): string {
  const [head = [], ...rest] = lines.map((line) => `| ${line.join(' | ')} |`)
  return [head, `|${'---|'.repeat(lines[0]?.length ?? 0)}`, ...rest].join('\n')
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)
