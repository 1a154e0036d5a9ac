/** The buckets that edits are counted in, with a clock that the test turns. Invariant 10. */
import { expect, test } from 'bun:test'
import { BUCKETS_MAX, createRateLimit } from '../../src/session/rate-limit.ts'

/** Ten edits a minute, at a time of the test's choosing. */
function limited() {
  let now = 1_000_000
  const limit = createRateLimit(10, () => now)
  return {
    take: limit.take,
    wait(milliseconds: number) {
      now += milliseconds
    },
  }
}

test('a bucket refills evenly, and no further than full', () => {
  const { take, wait } = limited()
  expect(take('a', 10)).toBe(true)
  expect(take('a', 1)).toBe(false)
  wait(6_000)
  expect(take('a', 1)).toBe(true)
  expect(take('a', 1)).toBe(false)
  wait(3_600_000)
  expect(take('a', 10)).toBe(true)
  expect(take('a', 1)).toBe(false)
})

test('what is refused takes nothing', () => {
  const { take } = limited()
  expect(take('a', 8)).toBe(true)
  expect(take('a', 5)).toBe(false)
  expect(take('a', 2)).toBe(true)
})

test('I10: so many addresses are remembered, and those in use are not forgotten for others', () => {
  const { take } = limited()
  expect(take('spent', 10)).toBe(true)
  expect(take('idle', 10)).toBe(true)
  for (let n = 0; n < BUCKETS_MAX - 1; n++) {
    take(`other ${n}`, 1)
    // Whoever goes on is remembered, however many others come.
    if (n % 1_000 === 0) expect(take('spent', 1)).toBe(false)
  }
  expect(take('spent', 1)).toBe(false)
  // The one that was silent the longest had to go.
  expect(take('idle', 10)).toBe(true)
})

test('0 is no limit', () => {
  expect(createRateLimit(0).take('a', 1_000_000)).toBe(true)
})
