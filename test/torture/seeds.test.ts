/** What `--seeds` may say. */
import { expect, test } from 'bun:test'
import { parseSeeds } from './seeds.ts'

test('seeds are numbers, ranges and `random`, with commas between', () => {
  expect(parseSeeds('3')).toEqual([3])
  expect(parseSeeds('3..5, 9')).toEqual([3, 4, 5, 9])
  const [first, second] = parseSeeds('1,random') ?? []
  expect(first).toBe(1)
  expect(Number.isSafeInteger(second)).toBe(true)
})

test('anything else is no seed', () => {
  for (const text of ['', 'x', '5..3', '1.5', '-1', '1,,2', '3..']) expect(parseSeeds(text)).toBeNull()
})
