/**
 * `bun run torture`: random histories with faults on a real PostGIS, two server processes and many clients, with every
 * frame and every end state checked (docs/TESTING.md). Exits 1 if any seed broke a rule, 2 if it was asked wrongly.
 */
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { History } from './history.ts'
import { type Length, runSeed } from './run-seed.ts'
import { parseSeeds } from './seeds.ts'
import { type SeedResult, summary } from './summary.ts'

const USAGE = `bun run torture [--seed N | --seeds A..B,C,random] [--minutes M | --rounds R] [--logs FOLDER]
  --minutes  of each seed, 1 unless told otherwise; getting ready and the last round's end come on top
  --rounds   instead: the same operations on a fast and on a slow machine
  --logs     where the histories go, which are kept then; otherwise only those of seeds that broke a rule are`

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    minutes: { type: 'string', default: '1' },
    rounds: { type: 'string' },
    logs: { type: 'string' },
  },
})
const seeds = parseSeeds(values.seed ?? values.seeds ?? '1')
const length: Length =
  values.rounds === undefined ? { minutes: Number(values.minutes) } : { rounds: Number(values.rounds) }
if (seeds === null || !('rounds' in length ? length.rounds > 0 : length.minutes > 0)) {
  console.error(USAGE)
  process.exit(2)
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
const results: SeedResult[] = []
let current: History | null = null
// A promise that nobody waits for must not take the report with it.
process.on('unhandledRejection', (error) =>
  current?.violation('torture', `unhandled: ${String((error as Error)?.stack ?? error)}`),
)
for (const seed of seeds) results.push(await run(seed))
console.log(`\n${summary(results)}`)
const broken = results.filter(({ history }) => history.violations.length > 0).map(({ seed }) => seed)
console.log(broken.length === 0 ? '\nnothing broken' : `\nBROKEN: ${broken.join(', ')}`)
process.exit(broken.length === 0 ? 0 : 1)

async function run(seed: number): Promise<SeedResult> {
  const history = new History(join(values.logs ?? tmpdir(), `datum-torture-${seed}.log`))
  current = history
  const began = Date.now()
  const rounds = await runSeed(seed, length, history)
  const result = { seed, rounds, seconds: (Date.now() - began) / 1_000, history }
  await history.close()
  report(result)
  if (history.violations.length === 0 && values.logs === undefined) await rm(history.path, { force: true })
  return result
}

function report({ seed, rounds, history }: SeedResult): void {
  const counts = [...history.counts, ...history.faults].sort(([a], [b]) => (a < b ? -1 : 1))
  console.log(counts.map(([what, count]) => `${what}: ${count}`).join(', '))
  if (history.violations.length === 0) return console.log(`seed ${seed}: ${rounds} rounds, nothing broken`)
  console.log(`\nthe history's tail (all of it: ${history.path}):\n${history.tail}\n`)
  const [first, ...others] = history.violations
  console.log(`seed ${seed}: BROKEN in round ${rounds} (again: --seed ${seed} --rounds ${rounds}):\n${first}`)
  for (const violation of others.slice(0, 20)) console.log(`then ${violation}`)
}
