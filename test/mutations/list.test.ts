/** Holds the list of mutations to the code, which is cheap; `bun run mutations` sees whether they are noticed. */
import { describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { MUTATIONS } from './list.ts'
import { mutate } from './mutation.ts'

const root = join(import.meta.dir, '../..')
const read = (path: string) => Bun.file(join(root, path)).text()

describe('every mutation', () => {
  for (const mutation of MUTATIONS)
    test(`applies: ${mutation.invariant} ${mutation.breaks}`, async () => {
      const source = await read(mutation.file)
      const mutated = mutate(mutation, source)
      expect(mutated).not.toBe(source)
      // One that is no program any more would be noticed by any test.
      if (mutation.file.endsWith('.ts')) new Bun.Transpiler({ loader: 'ts' }).transformSync(mutated)
      for (const path of mutation.tests) expect(await read(path)).toMatch(new RegExp(mutation.only ?? ''))
    })
})

test('every invariant is broken in two ways at least', () => {
  for (let number = 1; number <= 12; number++) {
    const broken = MUTATIONS.filter(({ invariant }) => invariant === `I${number}`).length
    expect({ invariant: number, isBroken: broken >= 2 }).toEqual({ invariant: number, isBroken: true })
  }
})

test('a text that is there twice, or not at all, is no mutation', () => {
  const mutation = { ...MUTATIONS[0]!, find: 'twice', replace: '' }
  expect(() => mutate(mutation, 'twice twice')).toThrow('2 times')
  expect(() => mutate(mutation, 'never')).toThrow('0 times')
})
