/** What a row works with: the cluster, the number of rounds, and words to the person who waits. */
import { type BenchCluster, startBenchCluster } from './cluster.ts'

export interface WorldOptions {
  readonly rounds: number
  /** A tenth of the work where that is possible: to see that it runs, not to learn how fast. */
  readonly quick: boolean
}

export interface World extends WorldOptions, AsyncDisposable {
  /** Started on first use: some rows need none. */
  cluster(): Promise<BenchCluster>
  /** `full`, or `small` in a quick run. */
  size(full: number, small: number): number
  /** Says on standard error what goes on. */
  say(words: string): void
  /** Runs `round` for each round and collects what it returns. */
  inRounds<T>(round: (n: number) => Promise<T>): Promise<T[]>
}

export function createWorld(options: WorldOptions): World {
  let cluster: Promise<BenchCluster> | null = null
  return {
    ...options,
    cluster() {
      cluster ??= startBenchCluster()
      return cluster
    },
    size: (full, small) => (options.quick ? small : full),
    say: (words) => void process.stderr.write(`  ${words}\n`),
    async inRounds(round) {
      const results: Awaited<ReturnType<typeof round>>[] = []
      for (let n = 0; n < options.rounds; n++) results.push(await round(n))
      return results
    },
    async [Symbol.asyncDispose]() {
      await (await cluster)?.stop()
    },
  }
}
