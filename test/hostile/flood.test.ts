/** Sockets that send more than anybody needs to, all of it valid: they end, and nobody waits for them. Invariant 9. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { MessageRate } from '../../src/session/message-rate.ts'
import { CloseCode } from '../../src/wire/close-codes.ts'
import { MESSAGES_BURST_MAX, MESSAGES_PER_SECOND_MAX } from '../../src/wire/limits.ts'
import { createWorld, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

test('messages come at once up to a number, and then so many in a second', () => {
  let now = 0
  const rate = new MessageRate(() => now)
  const taken = () => {
    let count = 0
    while (rate.take()) count++
    return count
  }
  expect(taken()).toBe(MESSAGES_BURST_MAX)
  now += 1_000
  expect(taken()).toBe(MESSAGES_PER_SECOND_MAX)
  now += 500
  expect(taken()).toBe(MESSAGES_PER_SECOND_MAX / 2)
  now += 3_600_000
  expect(taken()).toBe(MESSAGES_BURST_MAX)
})

test('I9: a socket that moves its box without end is closed with 4429, and the others see what changes', async () => {
  await using world = await createWorld()
  const witness = await world.watch(alice)
  const { client: flood } = await world.watch(alice)
  let seq = 0
  // As fast as one can: a slow machine takes longer, and the bucket refills meanwhile.
  for (let sent = 0; sent < 100 * MESSAGES_BURST_MAX && flood.closed === null; sent += 1_000) {
    for (let n = 0; n < 1_000; n++) {
      const [west, south, east, north] = ZURICH
      flood.send({ type: 'bbox', sub: 's', seq: ++seq, bbox: [west, south, east, north - (seq % 10) / 10] })
    }
    await Bun.sleep(0)
  }
  expect((await flood.untilClosed()).code).toBe(CloseCode.rateLimited)
  await world.barrier(witness.client, alice)
  await world.untilTrue(witness.client, witness.view, alice)
})
