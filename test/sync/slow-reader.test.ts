/** A client that does not read: it misses intermediate versions, never the last, and delays nobody. Invariants 9 and 10. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { createWorld, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { SlowSocket } from '../support/slow-socket.ts'
import { mintToken } from '../support/token.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

test('I10: a reader that stops ends with the final state, without the versions between', async () => {
  await using world = await createWorld()
  const rows = 300
  await world.admin`
    insert into features (org_id, name, size, geom)
    select 'a', '', 0, st_setsrid(st_makepoint(8.5, 47.5), 4326) from generate_series(1, ${rows})`
  const onlooker = await world.watch(alice)
  const slow = await SlowSocket.open(world.server.url)
  slow.send({ type: 'auth', token: await mintToken(alice) })
  slow.send({ type: 'subscribe', sub: 's', bbox: ZURICH })
  await slow.until(
    () => slow.frames.some((frame) => frame.type === 'view' && frame.complete === 0),
    'complete',
  )
  slow.pause()
  // 30 rounds of 300 rows of 10 kB are 90 MB: far more than the sockets' buffers and the server's hold.
  const rounds = 30
  for (let round = 1; round <= rounds; round++) {
    await world.admin`update features set size = ${round}, name = repeat('x', 10000)`
    // The fast one keeps up with every round: the slow one does not delay it.
    await onlooker.client.until(
      () => [...onlooker.view.rows.values()].every((row) => row.size === round),
      `round ${round}`,
    )
  }
  const gone = (
    await world.admin`delete from features where size = ${rounds} and id::text < '4' returning id::text`
  ).map((row) => row.id)
  await world.barrier(onlooker.client, alice)
  slow.resume()
  const sizes = new Map<string, unknown>()
  let applied = 0
  let received = 0
  const apply = () => {
    for (const frame of slow.frames.slice(applied)) {
      if (frame.type !== 'view') continue
      received += frame.rows?.length ?? 0
      for (const row of frame.rows ?? []) sizes.set(String(row.id), row.size)
      for (const id of frame.gone ?? []) sizes.delete(id)
    }
    applied = slow.frames.length
    return sizes.size === rows - gone.length && [...sizes.values()].every((size) => size === rounds)
  }
  await slow.until(apply, 'the final state')
  expect(gone.some((id) => sizes.has(id))).toBe(false)
  expect(received).toBeLessThan((rows * rounds) / 2)
  slow.close()
})

test('I9: a reader that never reads again holds up nobody, and the server stops', async () => {
  await using world = await createWorld()
  await world.admin`
    insert into features (org_id, name, geom)
    select 'a', repeat('x', 20000), st_setsrid(st_makepoint(8.5, 47.5), 4326) from generate_series(1, 1500)`
  const stuck = await Promise.all([1, 2, 3].map(() => SlowSocket.open(world.server.url)))
  for (const socket of stuck) {
    socket.pause()
    socket.send({ type: 'auth', token: await mintToken(alice) })
    socket.send({ type: 'subscribe', sub: 's', bbox: ZURICH })
  }
  const { client, view } = await world.watch(alice, { bbox: [8.5, 47.5, 8.5, 47.5] })
  expect(view.rows.size).toBe(1500)
  await world.barrier(client, alice)
  for (const socket of stuck) socket.close()
})
