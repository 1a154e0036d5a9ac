/** Which gate a read goes through, and when it changes to the other. Invariant 9. */
import { expect, test } from 'bun:test'
import { ReadGates, type ReadTime } from '../../src/sync/read-gates.ts'

const turn = () => new Promise((resolve) => setTimeout(resolve, 0))

/** Reads of one class that stay inside until they are told what comes of them. */
function makeClass(gates: ReadGates, key: string, isSlow = false) {
  const it = { isSlow }
  const inside: { time: ReadTime; end: (error?: string) => void }[] = []
  const readClass = {
    key,
    isSlow: () => it.isSlow,
    noteSlow: () => {
      it.isSlow = true
    },
  }
  const read = () =>
    gates.run({}, readClass, (time) => {
      const { promise, resolve, reject } = Promise.withResolvers<string>()
      const end = (code?: string) =>
        code === undefined ? resolve('read') : reject(Object.assign(new Error(), { code }))
      inside.push({ time, end })
      return promise
    })
  return { it, inside, read }
}

test('I9: what did not end in little time begins anew where it has much, and others of its class after it', async () => {
  const { inside, read } = makeClass(new ReadGates(), 'sloth')
  const reads = [read(), read()]
  await turn()
  expect(inside).toHaveLength(2)
  for (const { end } of inside.splice(0)) end('57014')
  await turn()
  expect(inside).toHaveLength(1)
  expect(inside[0]!.time.timeoutMs).toBeGreaterThan(10_000)
  inside[0]!.end()
  expect(await reads[0]).toBe('read')
  await turn()
  inside[1]!.end()
  expect(await reads[1]).toBe('read')
})

test('I9: those of a class that is quick again go on all at once', async () => {
  const { it, inside, read } = makeClass(new ReadGates(), 'sloth', true)
  const reads = Array.from({ length: 6 }, read)
  await turn()
  expect(inside).toHaveLength(1)
  it.isSlow = false
  inside[0]!.end()
  for (let n = 0; n < 5; n++) await turn()
  expect(inside).toHaveLength(6)
  for (const { end } of inside) end()
  expect(await Promise.all(reads)).toEqual(Array(6).fill('read'))
})

test('I9: slow classes leave the wide gate to others, and one waits for the other no longer than it must', async () => {
  const gates = new ReadGates()
  const sloths = Array.from({ length: 3 }, (_, n) => makeClass(gates, `sloth ${n}`, true))
  for (const { read } of sloths) for (let n = 0; n < 4; n++) read().catch(() => {})
  const other = makeClass(gates, 'quick')
  const reads = Array.from({ length: 4 }, other.read)
  await turn()
  expect(sloths.map(({ inside }) => inside.length)).toEqual([1, 1, 1])
  expect(other.inside).toHaveLength(4)
  for (const { end } of other.inside) end()
  await Promise.all(reads)
})

test('another error is the read’s own, and an end for it', async () => {
  const { inside, read } = makeClass(new ReadGates(), 'any')
  const one = read()
  await turn()
  inside[0]!.end('42501')
  await expect(one).rejects.toMatchObject({ code: '42501' })
  expect(inside).toHaveLength(1)
})

test('I9: reads of the change log are two at a time, and one of each user, and views are read beside them', async () => {
  const gates = new ReadGates()
  const inside: string[] = []
  const leave: (() => void)[] = []
  const readLog = (user: string) =>
    gates.readLog(
      user,
      () => true,
      async () => {
        inside.push(user)
        await new Promise<void>((resolve) => leave.push(resolve))
      },
    )
  for (const user of ['a', 'a', 'b', 'c']) void readLog(user)
  const { inside: views, read } = makeClass(gates, 'any')
  void read()
  await turn()
  expect(inside).toEqual(['a', 'b'])
  expect(views).toHaveLength(1)
  leave[1]!()
  await turn()
  expect(inside).toEqual(['a', 'b', 'c'])
})

test('I10: a read of the change log is left out when nobody wants it by its turn', async () => {
  const gates = new ReadGates()
  const first = Promise.withResolvers<string>()
  let isWanted = true
  const reads = [
    gates.readLog(
      'a',
      () => true,
      () => first.promise,
    ),
    gates.readLog(
      'a',
      () => isWanted,
      async () => 'second',
    ),
    gates.readLog(
      'a',
      () => true,
      async () => 'third',
    ),
  ]
  isWanted = false
  first.resolve('first')
  expect(await Promise.all(reads)).toEqual(['first', null, 'third'])
})
