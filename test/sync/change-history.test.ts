/** What the server remembers, against what each snapshot says of each transaction. Invariant 5. */
import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { isVisible, snapshotOf } from '../../src/db/cursor.ts'
import type { Change } from '../../src/db/feed.ts'
import { ChangeHistory } from '../../src/sync/change-history.ts'

const EPOCH = 'epoch'
const change = (xid: bigint): Change => ({ table: 1, xid, id: String(xid), before: null, after: null })

/** Transactions 1…n that begin in order and end in any: the snapshots after each end. */
function snapshotsOf(ends: readonly number[]): string[] {
  const ended = new Set<number>()
  return ends.map((xid) => {
    ended.add(xid)
    const xmax = Math.max(...ended) + 1
    const running = Array.from({ length: xmax - 1 }, (_, n) => n + 1).filter((n) => !ended.has(n))
    return `${running[0] ?? xmax}:${xmax}:${running.join(',')}`
  })
}

test('I5: after any cursor, exactly what it does not reflect, or nothing is said', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 30 }).chain((count) =>
        fc.record({
          ends: fc.shuffledSubarray(
            Array.from({ length: count }, (_, n) => n + 1),
            { minLength: count },
          ),
          looks: fc.array(fc.integer({ min: 0, max: count - 1 }), { minLength: 1, maxLength: 6 }),
        }),
      ),
      ({ ends, looks }) => {
        const snapshots = snapshotsOf(ends)
        // A feed that looks at some of the moments.
        const moments = [...new Set(looks)].sort((a, b) => a - b)
        const first = snapshotOf(snapshots[moments[0]!]!)
        const history = new ChangeHistory({ epoch: EPOCH, snapshot: snapshots[moments[0]!]! })
        for (let n = 1; n < moments.length; n++) {
          const [before, now] = [snapshotOf(snapshots[moments[n - 1]!]!), snapshotOf(snapshots[moments[n]!]!)]
          const changes = ends
            .map(BigInt)
            .filter((xid) => isVisible(xid, now) && !isVisible(xid, before))
            .map(change)
          history.add({
            changes,
            everything: false,
            cursor: { epoch: EPOCH, snapshot: snapshots[moments[n]!]! },
            backend: 1,
            wal: '0/0',
          })
        }
        const last = snapshotOf(snapshots[moments.at(-1)!]!)
        for (const snapshot of snapshots) {
          const answer = history.after({ epoch: EPOCH, snapshot })
          const cursor = snapshotOf(snapshot)
          const missed = ends.map(BigInt).filter((xid) => isVisible(xid, last) && !isVisible(xid, cursor))
          if (answer !== null) expect(answer.map(({ xid }) => xid).sort()).toEqual(missed.sort())
          // It may only be silent about what happened before it began.
          else expect(missed.some((xid) => isVisible(xid, first))).toBe(true)
        }
        expect(history.after({ epoch: 'another', snapshot: snapshots.at(-1)! })).toBeNull()
      },
    ),
  )
})

test('I5: what everybody must compare for, and what is too much, is forgotten, and said to be', () => {
  const history = new ChangeHistory({ epoch: EPOCH, snapshot: '10:10:' })
  const add = (from: bigint, count: number, everything = false) => {
    const changes = everything ? [] : Array.from({ length: count }, () => change(from))
    history.add({
      changes,
      everything,
      cursor: { epoch: EPOCH, snapshot: `${from + 1n}:${from + 1n}:` },
      backend: 1,
      wal: '0/0',
    })
  }
  add(10n, 1)
  expect(history.after({ epoch: EPOCH, snapshot: '10:10:' })).toHaveLength(1)
  add(11n, 0, true)
  expect(history.after({ epoch: EPOCH, snapshot: '10:10:' })).toBeNull()
  add(12n, 60_000)
  add(13n, 60_000)
  expect(history.after({ epoch: EPOCH, snapshot: '12:12:' })).toBeNull()
  expect(history.after({ epoch: EPOCH, snapshot: '13:13:' })).toHaveLength(60_000)
})
