/**
 * `bun run bench [name…] [--rounds N] [--quick] [--json FILE] [--markdown]`: measures the rows of docs/BENCHMARKS.md on
 * this machine; `--markdown` writes the figures of all of them into the documents (markdown.ts). Exits 0 whatever the figures are, since a busy machine is no bug; 1 if a row could not be measured.
 */
import { parseArgs } from 'node:util'
import { writePages } from './markdown.ts'
import { textTable } from './report.ts'
import type { Result } from './row.ts'
import { ROWS } from './rows.ts'
import { createWorld } from './world.ts'

const { values, positionals } = parseArgs({
  args: process.argv.slice(2),
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '3' },
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    markdown: { type: 'boolean', default: false },
  },
})
const rounds = Number(values.rounds)
const unknown = positionals.filter((name) => !ROWS.some((row) => row.name === name))
if (unknown.length > 0 || !Number.isInteger(rounds) || rounds < 1) {
  const names = ROWS.map(({ name }) => name).join(' ')
  console.error(`bench: names are ${names}; --rounds wants a whole number above 0`)
  process.exit(2)
}
if (values.markdown && values.quick) {
  console.error('bench: figures of a --quick run are not for the documents')
  process.exit(2)
}
if (values.markdown && positionals.length > 0) {
  console.error('bench: --markdown writes all figures anew, so it takes no names')
  process.exit(2)
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))

const results: Result[] = []
let failed = 0
{
  await using world = createWorld({ rounds, quick: values.quick })
  for (const row of ROWS) {
    if (positionals.length > 0 && !positionals.includes(row.name)) continue
    process.stderr.write(`${row.name}: ${row.question}\n`)
    const began = performance.now()
    try {
      results.push({ row, figures: await row.run(world) })
    } catch (error) {
      failed++
      process.stderr.write(`${row.name} could not be measured: ${(error as Error).stack}\n`)
    }
    world.say(`${((performance.now() - began) / 1_000).toFixed(0)} s`)
  }
}
console.log(textTable(results))
if (values.json !== undefined) {
  const written = results.map(({ row, figures }) => ({ row: row.name, mustBe: row.mustBe, figures }))
  await Bun.write(values.json, `${JSON.stringify(written, null, 2)}\n`)
}
if (values.markdown) {
  if (failed === 0) await writePages(results)
  else console.error('bench: the documents stay as they are, since not every row could be measured')
}
process.exit(failed === 0 ? 0 : 1)
