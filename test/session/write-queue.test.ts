/** Whom a batch counts for, and under what it may no longer run. Invariants 9 and 12. */
import { expect, test } from 'bun:test'
import { principalFromPayload } from '../../src/auth/claims.ts'
import type { Principal } from '../../src/auth/principal.ts'
import type { Table } from '../../src/db/catalog.ts'
import { createLog } from '../../src/observe/log.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { createRateLimit } from '../../src/session/rate-limit.ts'
import { WaitingWrites } from '../../src/session/waiting-writes.ts'
import { WriteQueue } from '../../src/session/write-queue.ts'
import type { Batch } from '../../src/sync/writes.ts'
import type { ServerMessage } from '../../src/wire/messages.ts'

const ADDRESS = '192.0.2.1'

/** A queue whose batches are applied when the test says so. `users`: for whom a place was asked. */
function makeQueue() {
  const users: string[] = []
  const batches: Batch[] = []
  const replies: ServerMessage[] = []
  const waitingWrites = new WaitingWrites()
  const take = waitingWrites.take.bind(waitingWrites)
  waitingWrites.take = (user, characters) => {
    users.push(user)
    return take(user, characters)
  }
  let letGo = () => {}
  const gone = new Promise<void>((resolve) => {
    letGo = resolve
  })
  const queue = new WriteQueue(
    {
      hub: { tableNamed: () => ({}) as Table, ring() {} },
      applyBatch: async (batch) => {
        batches.push(batch)
        await gone
        batch.admit()
        return { edits: [], xid: null }
      },
      rateLimit: createRateLimit(0),
      waitingWrites,
      expiryToleranceSeconds: 0,
      log: createLog('silent'),
      metrics: new Metrics(),
    },
    ADDRESS,
    { reply: (message) => void replies.push(message), committed() {}, unsettled: () => 0 },
  )
  const add = (principal: Principal) => {
    const batch = crypto.randomUUID()
    const message = { type: 'write', batch, edits: [{ op: 'delete', id: '1' }] } as const
    queue.add(message, JSON.stringify(message), principal)
  }
  return { queue, add, users, batches, replies, letGo }
}

const inSeconds = (seconds: number) => Math.floor(Date.now() / 1_000) + seconds
const principal = (claims: object) =>
  principalFromPayload(JSON.stringify({ exp: inSeconds(3_600), ...claims }))

test('I9: a sub of another issuer, and one that reads like an address, is another user', async () => {
  const { queue, add, users, batches, letGo } = makeQueue()
  letGo()
  add(principal({ sub: ADDRESS }))
  add(principal({ sub: ADDRESS, iss: 'https://one.test' }))
  add(principal({ sub: ADDRESS, iss: 'https://two.test' }))
  add(principal({}))
  await queue.drained()
  expect(new Set(users).size).toBe(4)
  expect(new Set(batches.map(({ owner }) => owner)).size).toBe(4)
})

test('I12: with enforce_expiry no batch is begun under a token that has ended while it waited', async () => {
  const { queue, add, batches, replies, letGo } = makeQueue()
  const ended = { ...principal({ sub: 'alice' }), expiresAt: inSeconds(-1) }
  add(principal({ sub: 'alice' }))
  add(ended)
  letGo()
  await queue.drained()
  expect(batches).toHaveLength(1)
  expect(replies.map(({ type }) => type)).toEqual(['outcome', 'unavailable'])
})

test('I12: nor one that has waited for its connection until then', async () => {
  const { queue, add, batches, replies, letGo } = makeQueue()
  const ending = { ...principal({ sub: 'alice' }) }
  add(ending)
  while (batches.length === 0) await Bun.sleep(0)
  Object.assign(ending, { expiresAt: inSeconds(-1) })
  letGo()
  await queue.drained()
  expect(replies.map(({ type }) => type)).toEqual(['unavailable'])
})
