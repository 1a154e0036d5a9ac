/** Races within one subscription that a black box cannot be made to run into, with a reader that answers on demand. */
import { expect, test } from 'bun:test'
import { ANONYMOUS, type Principal } from '../../src/auth/principal.ts'
import type { ReadRow } from '../../src/db/as-principal.ts'
import type { Table } from '../../src/db/catalog.ts'
import { snapshotOf } from '../../src/db/cursor.ts'
import { HeldCount } from '../../src/sync/held-count.ts'
import { HeldSet } from '../../src/sync/held-set.ts'
import { ParkedViews } from '../../src/sync/parked-views.ts'
import { RowHandles } from '../../src/sync/row-handles.ts'
import { RowSize } from '../../src/sync/row-size.ts'
import { Subscription } from '../../src/sync/subscription.ts'
import type { SubscriptionHome, ViewReader } from '../../src/sync/subscription-home.ts'
import { ViewSeal } from '../../src/sync/view-seal.ts'
import { GONE_IDS_MAX, ROWS_PER_SUBSCRIPTION_MAX } from '../../src/wire/limits.ts'
import type { Bbox, Id, ViewMessage } from '../../src/wire/messages.ts'

const WORLD: Bbox = [-180, -90, 180, 90]
const SMALL: Bbox = [0, 0, 1, 1]

const row = (id: Id, size: number): ReadRow => ({
  id,
  minX: 8,
  minY: 47,
  maxX: 8,
  maxY: 47,
  json: JSON.stringify({ id, size }),
})

/** A home without a database: the test answers each read. */
function makeHome(held: readonly Id[] = []) {
  const pendingIds: ((ids: readonly Id[]) => void)[] = []
  const pendingRows: ((rows: readonly ReadRow[]) => void)[] = []
  const frames: ViewMessage[] = []
  const reader: ViewReader = {
    ids: () => new Promise((resolve) => pendingIds.push(resolve)),
    rows: () => new Promise((resolve) => pendingRows.push((rows) => resolve({ rows, unread: [] }))),
    stream: async (_class, _bbox, take) => void (await take([row('x', 1)])),
  }
  const home: SubscriptionHome<Subscription> = {
    table: {
      oid: 1,
      rowSecurity: true,
      policyReads: {
        settings: new Set(['datum.org_id']),
        reading: { settings: new Set(['datum.org_id']), payloadKeys: new Set() },
        plansHold: true,
        rowAlone: true,
      },
    } as unknown as Table,
    cursorText: 'cursor',
    snapshot: snapshotOf('10:10:'),
    reader,
    rowSize: new RowSize(),
    handles: new RowHandles('key'),
    seal: new ViewSeal('key'),
    parked: new ParkedViews(),
    heldCount: new HeldCount(0),
    unregister: () => {},
    awaitsBatch: () => {},
    moved: () => {},
    tableChanged: async () => {},
  }
  const subscriber = {
    principal: ANONYMOUS as Principal,
    isClosed: false,
    writable: true,
    send: (frame: string) => void frames.push(JSON.parse(frame)),
    ended: () => {},
  }
  const heldSet = new HeldSet(home.handles)
  for (const id of held) heldSet.add(id)
  const subscription = new Subscription({ name: 's', bbox: WORLD, subscriber, home, held: heldSet })
  return { subscription, frames, pendingIds, pendingRows, subscriber }
}

const settle = () => new Promise((resolve) => setTimeout(resolve, 0))

test('I4: while a box is compared, changes in the boxes before it are still watched', async () => {
  const { subscription, pendingIds } = makeHome()
  subscription.start()
  await settle()
  expect(subscription.isLive).toBe(true)

  subscription.setBbox(SMALL, 1)
  await settle()
  expect(subscription.watched).toEqual([WORLD, SMALL])
  // Back before the comparison for the small box is answered: x is held all along, so its changes must count.
  subscription.setBbox(WORLD, 2)
  pendingIds.shift()?.([])
  await settle()
  expect(subscription.watched).toContain(WORLD)
  pendingIds.shift()?.(['x'])
  await settle()
  expect(subscription.isLive).toBe(true)
  expect(subscription.watched).toEqual([WORLD])
})

test('I4: boxes that move without end are watched within bounds', async () => {
  const { subscription } = makeHome()
  subscription.start()
  await settle()
  for (let seq = 1; seq <= 100; seq++) subscription.setBbox(SMALL, seq)
  expect(subscription.watched?.length).toBeLessThanOrEqual(9)
  expect(subscription.watched).toContainEqual(WORLD)
})

test('I4: a stretch of being live ends with every catching up, so that older shared reads are told apart', async () => {
  const { subscription, pendingRows, frames } = makeHome()
  subscription.start()
  await settle()
  const stretch = subscription.liveStretch
  subscription.markDirty(['x'])
  await settle()
  pendingRows.shift()?.([row('x', 2)])
  await settle()
  expect(subscription.isLive).toBe(true)
  expect(subscription.liveStretch).not.toBe(stretch)
  expect(frames.at(-2)?.rows).toEqual([{ id: 'x', size: 2 }])
})

test('I6: what was read under the claims or the box of before is not sent', async () => {
  const { subscription, pendingRows, pendingIds, frames } = makeHome()
  subscription.start()
  await settle()
  subscription.markDirty(['x'])
  await settle()
  subscription.setBbox(SMALL, 1)
  pendingRows.shift()?.([row('x', 2)])
  await settle()
  expect(frames.some((frame) => JSON.stringify(frame.rows ?? []).includes('"size":2'))).toBe(false)
  pendingIds.shift()?.([])
  await settle()
  expect(frames.at(-1)?.gone).toEqual(['x'])
})

test('I10: batches are remembered until the view has them, and no longer', async () => {
  const { subscription, pendingRows } = makeHome()
  subscription.start()
  await settle()
  subscription.markDirty(['x'])
  await settle()
  subscription.awaitBatch('one', 5n)
  subscription.awaitBatch('two', 6n)
  expect(subscription.unsettledCount).toBe(2)
  pendingRows.shift()?.([row('x', 2)])
  await settle()
  expect(subscription.unsettledCount).toBe(0)
})

test('I10: ids that leave are told at the pace of the socket, every one of them', async () => {
  const held = Array.from({ length: 3 * GONE_IDS_MAX }, (_, n) => `id ${n}`)
  const { subscription, subscriber, pendingIds, frames } = makeHome(held)
  const { send } = subscriber
  subscriber.send = (frame) => {
    send(frame)
    subscriber.writable = false
  }
  subscription.start()
  await settle()
  pendingIds.shift()?.([])
  for (let sent = 1; sent <= 3; sent++) {
    await settle()
    expect(frames.map(({ gone }) => gone?.length)).toEqual(new Array(sent).fill(GONE_IDS_MAX))
    // The box that comes back meanwhile does not make those untrue that are told already.
    if (sent === 2) subscription.setBbox(WORLD, 1)
    subscriber.writable = true
    subscription.onDrain()
  }
  await settle()
  pendingIds.shift()?.([])
  await settle()
  expect(frames.flatMap(({ gone = [] }) => gone).sort()).toEqual(held.sort())
})

test('I6: what was being read under the claims of before a swap is not sent', async () => {
  const { subscription, subscriber, pendingRows, pendingIds, frames } = makeHome()
  subscription.start()
  await settle()
  subscription.markDirty(['x'])
  await settle()
  subscriber.principal = { ...ANONYMOUS, settings: new Map([['datum.org_id', 'b']]) }
  subscription.principalChanged()
  pendingRows.shift()?.([row('x', 2)])
  await settle()
  expect(JSON.stringify(frames)).not.toContain('"size":2')
  pendingIds.shift()?.([])
  await settle()
  expect(frames.at(-1)?.gone).toEqual(['x'])
})

test('I10: of a socket that does not read so many changes are kept; then its whole view is compared', async () => {
  const { subscription, subscriber, pendingIds, pendingRows } = makeHome()
  subscription.start()
  await settle()
  subscriber.writable = false
  for (let n = 0; n <= ROWS_PER_SUBSCRIPTION_MAX; n++) subscription.markDirty([`row ${n}`])
  await settle()
  subscriber.writable = true
  subscription.onDrain()
  await settle()
  expect(pendingRows).toHaveLength(0)
  expect(pendingIds).toHaveLength(1)
})

test('I8: nothing is sent after the end', async () => {
  const { subscription, pendingRows, frames } = makeHome()
  subscription.start()
  await settle()
  subscription.markDirty(['x'])
  await settle()
  const sent = frames.length
  subscription.end('error', 'over')
  pendingRows.shift()?.([row('x', 2)])
  await settle()
  expect(frames.length).toBe(sent)
})
