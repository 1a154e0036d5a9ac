/**
 * `bun run torture --seed N --minutes M`: random histories with faults on a real PostGIS, two server processes and many
 * clients, with every frame and every end state checked. Exits 1 at the first violation; what happened is in a file.
 */
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Random } from '../support/random.ts'
import { checkpoint } from './checkpoint.ts'
import { DatumUser } from './datum-user.ts'
import { PostgresFaults, ServerFaults } from './faults.ts'
import { History } from './history.ts'
import { RawClient } from './raw-client.ts'
import { SqlWriter } from './sql-writer.ts'
import { type Actor, createTortureWorld } from './world.ts'

const RAW_CLIENTS = 6
const DATUM_USERS = 2
const SQL_WRITERS = 3
const CLIENT_STEPS_PER_ROUND = 80
/** Fewer, since each may hold up to hundreds of rows for seconds. */
const WRITER_STEPS_PER_ROUND = 20
const FAULTS_PER_ROUND = 2

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    seed: { type: 'string', default: '1' },
    minutes: { type: 'string', default: '1' },
    log: { type: 'string' },
  },
})
const seed = Number(values.seed)
const minutes = Number(values.minutes)
if (!Number.isInteger(seed) || !(minutes > 0)) {
  console.error('torture: --seed wants a whole number and --minutes a positive one')
  process.exit(2)
}
const history = new History(values.log ?? join(tmpdir(), `datum-torture-${seed}.log`))
// A promise that nobody waits for must not take the report with it.
process.on('unhandledRejection', (error) =>
  history.violation('torture', `unhandled: ${String((error as Error)?.stack ?? error)}`),
)

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))

let rounds = 0
await torture().catch((error: Error) => history.violation('torture', `threw ${error.stack}`))
report()
await history.close()
process.exit(history.violations.length === 0 ? 0 : 1)

async function torture(): Promise<void> {
  await using world = await createTortureWorld(history)
  // Each actor chooses by itself, so that who is faster does not change what the others do.
  let streams = 0
  const stream = () => new Random(seed * 1_000 + ++streams)
  const many = <T>(count: number, make: (n: number) => T) => Array.from({ length: count }, (_, n) => make(n))
  const clients = [
    ...many(RAW_CLIENTS, (n) => new RawClient(`raw ${n}`, world, stream(), stream())),
    ...many(DATUM_USERS, (n) => new DatumUser(`user ${n}`, world, stream(), stream())),
  ]
  const writers = many(SQL_WRITERS, (n) => new SqlWriter(`sql ${n}`, world, stream()))
  const faults: Actor[] = [new PostgresFaults(world, stream()), new ServerFaults(world, stream())]
  await writers[0]?.fill()
  // Of the torture itself; getting ready takes as long as it takes.
  const until = Date.now() + minutes * 60_000
  while (Date.now() < until && history.violations.length === 0) {
    history.note('torture', `round ${++rounds}`)
    await Promise.all([
      ...clients.map((actor) => actor.act(CLIENT_STEPS_PER_ROUND)),
      ...writers.map((actor) => actor.act(WRITER_STEPS_PER_ROUND)),
      ...faults.map((actor) => actor.act(FAULTS_PER_ROUND)),
    ])
    await checkpoint(world, clients)
    process.stderr.write(`seed ${seed}: round ${rounds}, ${history.counts.get('frames') ?? 0} frames\n`)
  }
  for (const client of clients) client.leave()
}

function report(): void {
  const counts = [...history.counts].sort(([a], [b]) => (a < b ? -1 : 1))
  console.log(counts.map(([what, count]) => `${what}: ${count}`).join(', '))
  if (history.violations.length === 0) return console.log(`seed ${seed}: ${rounds} rounds, nothing broken`)
  console.log(`\nthe history's tail (all of it: ${history.path}):\n${history.tail}\n`)
  const [first, ...others] = history.violations
  console.log(`seed ${seed}: BROKEN in round ${rounds} (run it again with --seed ${seed}):\n${first}`)
  for (const violation of others.slice(0, 20)) console.log(`then ${violation}`)
}
