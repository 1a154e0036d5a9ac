/** Holds docs/OPERATIONS.md to the code: it tells of every metric, and of none that is not there. */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { Metrics } from '../../src/observe/metrics.ts'

test('every metric is told of', async () => {
  const metrics = new Metrics()
  const zero = () => 0
  metrics.watch({
    sockets: zero,
    subscriptions: zero,
    heldRows: zero,
    queuedBytes: zero,
    healthy: () => true,
  })
  metrics.watchReads({ replica: 0, primary: 0 })
  const text = await metrics.text()
  const names = [...text.matchAll(/^# TYPE (\w+) /gm)].map(([, name = '']) => name)
  expect(names.length).toBeGreaterThan(10)
  const document = await Bun.file(join(import.meta.dir, '../../docs/OPERATIONS.md')).text()
  const cells = [...document.matchAll(/^\| (`datum_[^|]*)/gm)].map(([, cell]) => cell).join(' ')
  const told = [...cells.matchAll(/`(\w+)`/g)].map(([, name = '']) => name)
  expect(told.sort()).toEqual(names.sort())
})
