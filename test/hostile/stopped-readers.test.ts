/**
 * What is queued for sockets that stop reading, whatever is written and whatever they ask for meanwhile. The script
 * `stopped-readers.ts` measures the process's memory with a thousand of them. Invariants 9 and 10.
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { QUEUED_REPLIES_MAX, VIEW_FRAME_CHARACTERS } from '../../src/wire/limits.ts'
import { createWorld, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { SlowSocket } from '../support/slow-socket.ts'
import { mintToken } from '../support/token.ts'

setDefaultTimeout(2 * TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const ROW_BYTES = 10_000
const ROWS = 100
const READERS = 4
/** A kernel takes some megabytes for each socket before the server has to queue; then it goes on for some rounds. */
const ROUNDS_MAX = 60
const ROUNDS_QUEUED = 8

async function queuedBytes(world: World): Promise<number> {
  const text = await (await fetch(`${world.server.url}/metrics`)).text()
  return Number(/^datum_queued_bytes (\d+)$/m.exec(text)?.[1])
}

/** A socket with views of Zurich under these names, that shows the newest `size` of each row. */
async function open(world: World, subs: readonly string[]) {
  const views = new Map(subs.map((sub) => [sub, new Map<string, unknown>()]))
  let complete = 0
  const socket = await SlowSocket.open(world.server.url, (frame) => {
    if (frame.type !== 'view') return
    const view = views.get(frame.sub)!
    for (const row of frame.rows ?? []) view.set(String(row.id), row.size)
    for (const id of frame.gone ?? []) view.delete(id)
    if (frame.complete === 0) complete++
  })
  socket.send({ type: 'auth', token: await mintToken(alice) })
  for (const sub of subs) socket.send({ type: 'subscribe', sub, bbox: ZURICH })
  await socket.until(() => complete === subs.length, 'complete')
  const shows = (count: number, size: number) =>
    [...views.values()].every(
      (view) => view.size === count && [...view.values()].every((value) => value === size),
    )
  return { socket, shows }
}

test('I10: for a socket that does not read one frame is queued, however many views it has, and the rest is left', async () => {
  await using world = await createWorld()
  await world.admin`
    insert into features (org_id, name, size, geom)
    select 'a', '', 0, st_setsrid(st_makepoint(8.5, 47.5), 4326) from generate_series(1, ${ROWS})`
  const onlooker = await world.watch(alice)
  const readers = await Promise.all(Array.from({ length: READERS }, () => open(world, ['s1', 's2', 's3'])))
  for (const { socket } of readers) socket.pause()
  let most = 0
  let roundsQueued = 0
  let round = 0
  while (roundsQueued < ROUNDS_QUEUED && round < ROUNDS_MAX) {
    round++
    await world.admin`update features set size = ${round}, name = repeat('x', ${ROW_BYTES})`
    await onlooker.client.until(
      () => [...onlooker.view.rows.values()].every(({ size }) => size === round),
      `${round}`,
    )
    const queued = await queuedBytes(world)
    if (queued > 0) roundsQueued++
    most = Math.max(most, queued)
  }
  expect(roundsQueued).toBe(ROUNDS_QUEUED)
  // A frame is cut once it is as long as that, so with the row that made it so.
  expect(most / READERS).toBeLessThan(VIEW_FRAME_CHARACTERS + 2 * ROW_BYTES)
  for (const { socket } of readers) socket.resume()
  for (const { socket, shows } of readers) {
    await socket.until(() => shows(ROWS, round), 'the final state')
    socket.close()
  }
})

test('I9, I10: a socket that asks and asks and does not read is ended, and nobody notices', async () => {
  await using world = await createWorld()
  const witness = await world.watch(alice)
  const { socket } = await open(world, ['s'])
  socket.pause()
  let most = 0
  // Answered at once, each with some kilobytes, and too small to wait for a turn.
  const edits = Array.from({ length: 100 }, () => ({ op: 'delete', id: '1' }) as const)
  for (let asked = 0; asked < 4_000 && (await openSockets(world)) === 2; asked += 4) {
    for (let n = 0; n < 4; n++)
      socket.send({ type: 'write', batch: crypto.randomUUID(), table: 'nonsense', edits })
    most = Math.max(most, await queuedBytes(world))
  }
  expect(await openSockets(world)).toBe(1)
  expect(most).toBeGreaterThan(0)
  expect(most).toBeLessThan(QUEUED_REPLIES_MAX + VIEW_FRAME_CHARACTERS)
  await world.barrier(witness.client, alice)
  socket.close()
})

async function openSockets(world: World): Promise<number> {
  const text = await (await fetch(`${world.server.url}/metrics`)).text()
  return Number(/^datum_sockets (\d+)$/m.exec(text)?.[1])
}
