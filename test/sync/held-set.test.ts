/** The hash table of what a client holds, against a plain Set. Invariants 3 and 10. */
import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { HeldSet } from '../../src/sync/held-set.ts'
import { RowHandles } from '../../src/sync/row-handles.ts'

const id = fc.integer({ min: 0, max: 300 }).map((n) => `row ${n}`)
const operation = fc.oneof(
  { weight: 5, arbitrary: fc.record({ op: fc.constant('add' as const), id }) },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('delete' as const), id }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('clear' as const), id }) },
)

test('I3: holds what was added and not deleted, whatever the order', () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 2_000 }), (operations) => {
      const handles = new RowHandles('key')
      // Another holder of the same rows: handles are given out in another order than they are asked for.
      const other = new HeldSet(handles)
      const held = new HeldSet(handles)
      const expected = new Set<string>()
      for (const { op, id } of operations) {
        if (op === 'add') {
          if (expected.size % 3 === 0) other.add(`${id} of another`)
          held.add(id)
          expected.add(id)
        } else if (op === 'delete') {
          expect(held.delete(id)).toBe(expected.delete(id))
        } else {
          held.clear()
          expected.clear()
        }
      }
      expect(held.size).toBe(expected.size)
      expect([...held.ids()].sort()).toEqual([...expected].sort())
      for (let n = 0; n <= 300; n++) expect(held.has(`row ${n}`)).toBe(expected.has(`row ${n}`))
      held.clear()
      other.clear()
      expect(handles.size).toBe(0)
    }),
    { numRuns: 50 },
  )
})

test('I3: hashes alike exactly what is alike', () => {
  fc.assert(
    fc.property(fc.uniqueArray(id, { minLength: 1 }), fc.nat(), (ids, seed) => {
      const [one, two] = [new HeldSet(new RowHandles('key')), new HeldSet(new RowHandles('key'))]
      for (const each of ids) one.add(each)
      for (const each of [...ids.slice(seed % ids.length), ...ids.slice(0, seed % ids.length)]) {
        two.add(each)
        two.add('passing by')
        two.delete('passing by')
      }
      expect(two.hash).toBe(one.hash)
      two.delete(ids[0]!)
      expect(two.hash).not.toBe(one.hash)
      two.add('another')
      expect(two.hash).not.toBe(one.hash)
      const elsewhere = new HeldSet(new RowHandles('another key'))
      for (const each of ids) elsewhere.add(each)
      expect(elsewhere.hash).not.toBe(one.hash)
    }),
  )
})
