/** One seed: a world, its actors, and rounds of random operations and faults, each followed by a checkpoint. */
import { Random } from '../support/random.ts'
import { checkpoint } from './checkpoint.ts'
import { DatumUser } from './datum-user.ts'
import { PostgresFaults, ServerFaults } from './faults.ts'
import type { History } from './history.ts'
import { Intruder } from './intruder.ts'
import { RawClient } from './raw-client.ts'
import { SqlWriter } from './sql-writer.ts'
import { type Actor, createTortureWorld } from './world.ts'

const RAW_CLIENTS = 9
const DATUM_USERS = 3
const SQL_WRITERS = 3
const CLIENT_STEPS_PER_ROUND = 80
/** Fewer, since each may hold up to hundreds of rows for seconds. */
const WRITER_STEPS_PER_ROUND = 20
/** Fewer, since each waits until it is thrown out. */
const INTRUDER_STEPS_PER_ROUND = 15
const FAULTS_PER_ROUND = 2
/** Nothing is measured with it: a round takes half a minute, a few on a busy machine, and for ever where somebody hangs. */
const ROUND_MS_MAX = 600_000

/** When a run is over: after so many rounds, or with the first round that ends after so many minutes. */
export type Length = { readonly rounds: number } | { readonly minutes: number }

/** Resolves to the number of rounds begun. Stops at the first round that breaks a rule; `history` says which. */
export async function runSeed(seed: number, length: Length, history: History): Promise<number> {
  let rounds = 0
  try {
    await using world = await createTortureWorld(history)
    // Each actor chooses by itself, so that who is faster does not change what the others do.
    let streams = 0
    const stream = () => new Random(seed * 1_000 + ++streams)
    const many = <T>(count: number, make: (n: number) => T) =>
      Array.from({ length: count }, (_, n) => make(n))
    const clients = [
      ...many(RAW_CLIENTS, (n) => new RawClient(`raw ${n}`, world, stream(), stream())),
      ...many(DATUM_USERS, (n) => new DatumUser(`user ${n}`, world, stream(), stream())),
    ]
    const writers = many(SQL_WRITERS, (n) => new SqlWriter(`sql ${n}`, world, stream()))
    const faults: Actor[] = [new PostgresFaults(world, stream()), new ServerFaults(world, stream())]
    const intruder = new Intruder('intruder', world, stream())
    await writers[0]?.fill()
    // Of the torture itself; getting ready takes as long as it takes.
    const began = Date.now()
    const isOver = () =>
      'rounds' in length ? rounds >= length.rounds : Date.now() >= began + length.minutes * 60_000
    while (!isOver() && history.violations.length === 0) {
      history.note('torture', `round ${++rounds}`)
      const hanging = await allAct([
        ...clients.map((actor) => [actor, CLIENT_STEPS_PER_ROUND] as const),
        ...writers.map((actor) => [actor, WRITER_STEPS_PER_ROUND] as const),
        ...faults.map((actor) => [actor, FAULTS_PER_ROUND] as const),
        [intruder, INTRUDER_STEPS_PER_ROUND],
      ])
      if (hanging.length > 0) history.violation('torture', `the round does not end: ${hanging} hang`)
      else await checkpoint(world, clients)
      process.stderr.write(`seed ${seed}: round ${rounds}, ${history.counts.get('frames') ?? 0} frames\n`)
    }
    for (const client of clients) client.leave()
  } catch (error) {
    history.violation('torture', `threw ${String((error as Error).stack ?? error)}`)
  }
  return rounds
}

/** Everybody side by side. Resolves to the names of those that do not come to an end. */
async function allAct(steps: readonly (readonly [Actor, number])[]): Promise<string[]> {
  const acting = new Set(steps.map(([{ name }]) => name))
  const all = Promise.all(
    steps.map(([actor, count]) => actor.act(count).then(() => acting.delete(actor.name))),
  )
  let timer: ReturnType<typeof setTimeout> | undefined
  const patience = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ROUND_MS_MAX)
  })
  await Promise.race([all, patience])
  clearTimeout(timer)
  return [...acting]
}
