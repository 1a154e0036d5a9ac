/**
 * How a property of this folder is run: with a printed seed, so that a failure can be had again, and a bounded number
 * of runs. `DATUM_TEST_SEED` repeats a run; `DATUM_FUZZ_RUNS` makes it longer (the default takes seconds).
 */
import type { Parameters } from 'fast-check'
import { runSeed } from '../support/random.ts'

/** Parameters for `fc.assert`; `runs` is how often, where DATUM_FUZZ_RUNS does not say. */
export function fuzzRun<T>(what: string, runs: number): Parameters<T> {
  const seed = runSeed()
  const numRuns = Number(process.env.DATUM_FUZZ_RUNS ?? runs)
  process.stderr.write(`${what}: ${numRuns} runs, DATUM_TEST_SEED=${seed}\n`)
  // Where each run is a conversation with a server, shrinking a failure would outlast the test.
  return { seed, numRuns, endOnFailure: true }
}
