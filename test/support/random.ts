/** A seeded generator of random choices (mulberry32), so that a failing run can be repeated from its printed seed. */
export class Random {
  #state: number

  constructor(readonly seed: number) {
    this.#state = seed >>> 0
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let t = this.#state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }

  /** An integer in [0, end). */
  below(end: number): number {
    return Math.floor(this.next() * end)
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  /** One of the actions, as often as its weight says. */
  weighted<T>(choices: readonly (readonly [weight: number, value: T])[]): T {
    let rest = this.next() * choices.reduce((sum, [weight]) => sum + weight, 0)
    for (const [weight, value] of choices) {
      rest -= weight
      if (rest < 0) return value
    }
    return choices.at(-1)![1]
  }
}

/** The seed of this run: `DATUM_TEST_SEED`, or a new one each time. */
export function runSeed(): number {
  const given = process.env.DATUM_TEST_SEED
  return given === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given)
}
