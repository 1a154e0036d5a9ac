/** Places are shared: so many in all, fewer of one key, in turn by key. Invariant 9. */
import { expect, test } from 'bun:test'
import { FairGate } from '../../src/sync/fair-gate.ts'

const turn = () => new Promise((resolve) => setTimeout(resolve, 0))

/** Work that stays inside until it is told to leave; `inside` has who is. */
function makeWork(gate: FairGate) {
  const inside: string[] = []
  const leave: (() => void)[] = []
  const enter = (key: string, name: string) =>
    gate.run(key, async () => {
      inside.push(name)
      await new Promise<void>((resolve) => leave.push(resolve))
    })
  return { inside, leave, enter }
}

test('I9: one key cannot have all the places', async () => {
  const { inside, enter } = makeWork(new FairGate(3, 2))
  for (let n = 0; n < 10; n++) void enter('greedy', `greedy ${n}`)
  void enter('modest', 'modest')
  await turn()
  expect(inside).toEqual(['greedy 0', 'greedy 1', 'modest'])
})

test('I9: who waits is served in turn by key', async () => {
  const { inside, leave, enter } = makeWork(new FairGate(1, 1))
  for (const name of ['a1', 'a2', 'a3', 'b1', 'b2', 'c1']) void enter(name.charAt(0), name)
  for (let n = 0; n < 6; n++) {
    await turn()
    leave[n]?.()
  }
  await turn()
  expect(inside).toEqual(['a1', 'a2', 'b1', 'c1', 'a3', 'b2'])
})

test('a place is given back by work that fails', async () => {
  const gate = new FairGate(1, 1)
  await expect(gate.run('a', () => Promise.reject(new Error('failed')))).rejects.toThrow('failed')
  expect(await gate.run('a', async () => 'in')).toBe('in')
})

test('I9: work that takes long gives its place to others, as far as there is room beside it', async () => {
  const gate = new FairGate(1, 1, { afterMs: 0, places: 2 })
  const { inside, leave, enter } = makeWork(gate)
  for (const name of ['a', 'b', 'c', 'd']) void enter(name, name)
  while (inside.length < 3) await turn()
  for (let n = 0; n < 5; n++) await turn()
  expect(inside).toEqual(['a', 'b', 'c'])
  // The room is full with a and b; what leaves it lets c in, and d gets its place.
  leave[0]?.()
  while (inside.length < 4) await turn()
  for (const done of leave) done()
  expect(await gate.run('e', async () => 'in')).toBe('in')
})
