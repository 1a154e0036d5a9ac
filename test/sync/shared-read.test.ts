/** What one statement asks for is bounded by rows and by settings. Invariants 9 and 10. */
import { expect, test } from 'bun:test'
import type { ClaimSettings, ClassRead } from '../../src/db/as-principal.ts'
import type { ClassInterest } from '../../src/sync/interest.ts'
import { JointReads } from '../../src/sync/joint-reads.ts'
import { runsOf, SETTINGS_MAX } from '../../src/sync/shared-read.ts'
import type { ReadFor } from '../../src/sync/subscription-home.ts'

/** Classes that share ten names, and others that have 256 of their own each, as an issuer may let users name them. */
function makeClasses(modest: number, greedy: number): { key: string; settings: ClaimSettings }[] {
  const named = (prefix: string, count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, n) => [`datum.${prefix}${n}`, 'x']))
  return Array.from({ length: modest + greedy }, (_, n) => ({
    key: String(n),
    settings: n % 10 === 0 && n < greedy * 10 ? named(`own_${n}_`, 256) : named('common_', 10),
  }))
}

/** Settings that a statement makes: every class sets every name. */
function settingsIn(classes: readonly { readonly settings: ClaimSettings }[]): number {
  return classes.length * new Set(classes.flatMap(({ settings }) => Object.keys(settings))).size
}

test('I9: a shared read is cut where users’ own names would make its settings many, and leaves nobody out', () => {
  const classes = makeClasses(460, 40)
  const interests = classes.map((one) => ({ ...one, areas: [{ rows: [0] }] })) as unknown as ClassInterest[]
  const runs = [...runsOf(interests, ['id'], 10_000)].map((run) => run.map(({ interest }) => interest))
  expect(settingsIn(classes)).toBeGreaterThan(50 * SETTINGS_MAX)
  for (const run of runs) expect(settingsIn(run)).toBeLessThanOrEqual(SETTINGS_MAX)
  expect(new Set(runs.flat()).size).toBe(classes.length)
  // Those who have but a few names stay together.
  expect(runs.length).toBeLessThan(10)
})

test('I9: so is a joint read', async () => {
  const classes = makeClasses(90, 40)
  const statements: (readonly ClassRead[])[] = []
  const joint = new JointReads({
    readTogether: async (reads) => {
      statements.push(reads)
      return reads.map(() => ({ rows: [], unread: [] }))
    },
    readAlone: () => Promise.reject(new Error('not to be read alone')),
    isSlow: () => false,
    rowsMax: () => 10_000,
  })
  await Promise.all(classes.map((one) => joint.rows({ class: one } as unknown as ReadFor, ['id'])))
  for (const reads of statements) expect(settingsIn(reads)).toBeLessThanOrEqual(SETTINGS_MAX)
  expect(statements.flat()).toHaveLength(classes.length)
})

test('I10: what is too large to be read for many is read alone, and not asked for together for ever', async () => {
  const [large, small] = makeClasses(2, 0)
  const alone: (readonly string[])[] = []
  const row = { id: 'small', minX: 0, minY: 0, maxX: 0, maxY: 0, json: '{}' }
  const joint = new JointReads({
    readTogether: async (reads) =>
      reads.map(({ ids }) =>
        ids.includes('large') ? { rows: [], unread: ['large'] } : { rows: [row], unread: ['more'] },
      ),
    readAlone: async (_, ids) => {
      alone.push(ids)
      return { rows: [], unread: [] }
    },
    isSlow: () => false,
    rowsMax: () => 10,
  })
  const read = (one: unknown, id: string) => joint.rows({ class: one } as ReadFor, [id, 'more'])
  const [, ofSmall] = await Promise.all([read(large, 'large'), read(small, 'small')])
  expect(alone).toEqual([['large', 'more']])
  expect(ofSmall).toEqual({ rows: [row], unread: ['more'] })
})

test('I10: so is what is too large beside a row of another view of its class', async () => {
  const [one] = makeClasses(1, 0)
  const row = { id: 'small', minX: 0, minY: 0, maxX: 0, maxY: 0, json: '{}' }
  const large = { ...row, id: 'large' }
  const joint = new JointReads({
    readTogether: async (reads) => reads.map(() => ({ rows: [row], unread: ['large'] })),
    readAlone: async () => ({ rows: [large], unread: [] }),
    isSlow: () => false,
    rowsMax: () => 10,
  })
  const read = (id: string) => joint.rows({ class: one } as unknown as ReadFor, [id])
  const results = await Promise.all([read('small'), read('large')])
  expect(results).toEqual([
    { rows: [row], unread: [] },
    { rows: [large], unread: [] },
  ])
})
