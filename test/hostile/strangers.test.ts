/** Sockets that show no token: anybody on the network can open them, and they must not keep users out. Invariant 10. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { CloseCode } from '../../src/wire/close-codes.ts'
import { createWorld, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'
import { handshake, RawSocket } from '../support/raw-socket.ts'
import { mintToken } from '../support/token.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

/** The status of a handshake's answer; the socket stays open. */
async function knock(
  world: World,
  forwardedFor = '198.51.100.1',
): Promise<{ status: number; raw: RawSocket }> {
  const raw = await RawSocket.connect(world.server.url)
  raw.write(handshake(world.server.url, { 'X-Forwarded-For': forwardedFor }))
  await raw.until(() => raw.text.includes('\r\n\r\n'), 'an answer')
  return { status: Number(raw.text.slice(9, 12)), raw }
}

const statuses = async (knocks: readonly Promise<{ status: number }>[]) => {
  const counts: Record<number, number> = {}
  for (const { status } of await Promise.all(knocks)) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

test('I10: an address has only so many sockets without a token, however many knock at once', async () => {
  await using world = await createWorld({
    config: { unauthenticatedPerIp: 5, trustedProxies: ['127.0.0.1'] },
  })
  const knocks = Array.from({ length: 40 }, () => knock(world))
  expect(await statuses(knocks)).toEqual({ 101: 5, 429: 35 })
  // Another address, another count.
  expect((await knock(world, '198.51.100.2')).status).toBe(101)
  // One that leaves makes room.
  const open = (await Promise.all(knocks)).find(({ status }) => status === 101)!
  open.raw.destroy()
  await untilStatus(world, 101)
  expect((await knock(world)).status).toBe(429)
})

test('I10: so does the process, from all addresses together', async () => {
  await using world = await createWorld({
    config: { unauthenticated: 8, unauthenticatedPerIp: 5, trustedProxies: ['127.0.0.1'] },
  })
  const knocks = Array.from({ length: 30 }, (_, n) => knock(world, `198.51.100.${n}`))
  expect(await statuses(knocks)).toEqual({ 101: 8, 503: 22 })
})

test('I10: a socket that shows its token counts no longer, and one that shows a bad one leaves', async () => {
  await using world = await createWorld({ config: { unauthenticated: 1 } })
  for (let n = 0; n < 5; n++) await world.watch(alice)
  const bad = await world.open()
  bad.send({ type: 'auth', token: 'none' })
  expect((await bad.untilClosed()).code).toBe(CloseCode.unauthorized)
  const late = await world.open()
  await expect(world.open()).rejects.toThrow()
  await late.authenticate(await mintToken(alice))
  // A refresh changes nothing about that.
  await late.authenticate(await mintToken(alice))
  await world.watch(alice)
  late.kill()
  await late.untilClosed()
  await world.open()
  await expect(world.open()).rejects.toThrow()
})

test('I10: a server without `auth:` has no strangers', async () => {
  await using world = await createWorld({
    auth: null,
    config: { unauthenticated: 1, unauthenticatedPerIp: 1 },
  })
  for (let n = 0; n < 5; n++) await world.open()
})

async function untilStatus(world: World, wanted: number): Promise<void> {
  const giveUpAt = Date.now() + TEST_TIMEOUT_MS / 2
  while ((await knock(world)).status !== wanted)
    if (Date.now() > giveUpAt) throw new Error(`a handshake was never answered with ${wanted}`)
}
