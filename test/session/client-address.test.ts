/** Whose address limits are counted by. A header that anybody can send must not choose it. Invariant 10. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { isAddressRange } from '../../src/config/address-range.ts'
import { clientAddressBehind } from '../../src/session/client-address.ts'
import { createWorld, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

test.each([
  ['nobody is trusted: the header is nothing', [], '203.0.113.9', '198.51.100.1', '203.0.113.9'],
  ['from a proxy: the hop before it', ['10.0.0.0/8'], '10.1.2.3', '198.51.100.1', '198.51.100.1'],
  ['a forged first hop is not believed', ['10.0.0.0/8'], '10.1.2.3', '6.6.6.6, 198.51.100.1', '198.51.100.1'],
  ['through two proxies', ['10.0.0.0/8'], '10.1.2.3', '6.6.6.6, 198.51.100.1, 10.9.9.9', '198.51.100.1'],
  ['straight from a client that sends the header', ['10.0.0.0/8'], '203.0.113.9', '10.0.0.1', '203.0.113.9'],
  ['a header that is no address', ['10.0.0.0/8'], '10.1.2.3', 'unknown', '10.1.2.3'],
  ['no header', ['10.0.0.0/8'], '10.1.2.3', null, '10.1.2.3'],
  ['IPv4 over IPv6', ['10.0.0.0/8'], '::ffff:10.1.2.3', '198.51.100.1', '198.51.100.1'],
  ['IPv4 over IPv6, in hexadecimal', ['10.0.0.0/8'], '::ffff:a01:203', '198.51.100.1', '198.51.100.1'],
  ['IPv6, by its network', ['fd00::/8', '::1'], 'fd00::1', '2001:db8::7, ::1', '2001:db8:0:0::/64'],
  ['a port that the proxy adds', ['10.0.0.0/8'], '10.1.2.3', '198.51.100.1:4711', '198.51.100.1'],
  ['IPv6 with a port', ['10.0.0.0/8'], '10.1.2.3', '[2001:db8:1:2:3::7]:4711', '2001:db8:1:2::/64'],
  ['a hop with a zone', ['fe80::/10'], 'fe80::1%eth0', '198.51.100.1', '198.51.100.1'],
  ['an IPv4 address within IPv6', ['10.0.0.0/8'], '10.1.2.3', '64:ff9b::192.0.2.1', '64:ff9b:0:0::/64'],
  ['a header of commas', ['10.0.0.0/8'], '10.1.2.3', ',,,', '10.1.2.3'],
  ['a peer that is no address', ['10.0.0.0/8'], '', '198.51.100.1', ''],
] as const)('I10: %s', (_what, trusted, peer, header, expected) => {
  expect(clientAddressBehind(trusted)(peer, header)).toBe(expected)
})

test('I10: addresses of one IPv6 network, however they are spelled, count as one; of another, as another', () => {
  const address = clientAddressBehind([])
  const own = [
    '2001:db8:0:1::1',
    '2001:DB8::1:ffff:0:0:1',
    '2001:0db8:0000:0001:1:2:3:4',
    '2001:db8:0:1::192.0.2.1',
  ]
  expect(new Set(own.map((spelling) => address(spelling, null))).size).toBe(1)
  expect(address('2001:db8:0:2::1', null)).not.toBe(address('2001:db8:0:1::1', null))
})

test.each(['10.0.0.0/8', '127.0.0.1', '::1', 'fd00::/8'])('%s is an address or a range', (text) => {
  expect(isAddressRange(text)).toBe(true)
})

test.each(['', '10.0.0.0/33', '10.0.0', 'proxy', '10.0.0.0/8/8', '::1/129', '1.2.3.4/'])(
  '%s is none',
  (text) => {
    expect(isAddressRange(text)).toBe(false)
  },
)

test('I10: an address has only so many sockets; one that closes makes room', async () => {
  await using world = await createWorld({ config: { connectionsPerIp: 2 } })
  const status = () => statusOfHandshake(world.server.url, crypto.randomUUID())
  const first = await world.open()
  await world.open()
  expect(await status()).toBe(429)
  first.kill()
  await first.untilClosed()
  await world.open()
})

/** What HTTP says to a handshake that comes with this X-Forwarded-For. */
async function statusOfHandshake(url: string, forwardedFor: string): Promise<number> {
  const headers = {
    connection: 'upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    'x-forwarded-for': forwardedFor,
  }
  return (await fetch(`${url}/ws`, { headers })).status
}

const alice = { sub: 'alice', org_id: 'a' }

/** Writes one row over a socket of its own that claims to come from elsewhere. */
async function writeFrom(world: World, forwardedFor: string): Promise<string> {
  const client = await world.connect(alice, { headers: { 'x-forwarded-for': forwardedFor } })
  const { edits } = await client.write([{ op: 'insert', columns: { org_id: 'a' } }])
  client.kill()
  const [edit] = edits
  return edit!.status === 'applied' ? 'applied' : edit!.code
}

test('I10: a forged X-Forwarded-For buys no further edits', async () => {
  await using world = await createWorld({ config: { rateLimit: 2 } })
  expect(await writeFrom(world, '198.51.100.1')).toBe('applied')
  expect(await writeFrom(world, '198.51.100.2')).toBe('applied')
  for (const forged of ['198.51.100.3', '2001:db8::1', '127.0.0.1', 'unknown', '1.2.3.4, 5.6.7.8'])
    expect(await writeFrom(world, forged)).toBe('rate_limited')
})

test('I10: behind a trusted proxy each client has its own limit, and its own forged hops buy nothing', async () => {
  await using world = await createWorld({ config: { rateLimit: 1, trustedProxies: ['127.0.0.1'] } })
  expect(await writeFrom(world, '198.51.100.1')).toBe('applied')
  expect(await writeFrom(world, '198.51.100.2')).toBe('applied')
  // What the client sent stands before what the proxy saw.
  expect(await writeFrom(world, '203.0.113.7, 198.51.100.1')).toBe('rate_limited')
  expect(await writeFrom(world, '127.0.0.1, 198.51.100.2')).toBe('rate_limited')
  // A neighbour in the same network of 64 bits, and one in another.
  expect(await writeFrom(world, '2001:db8:0:1::1')).toBe('applied')
  expect(await writeFrom(world, '2001:db8:0:1:ffff::2')).toBe('rate_limited')
  expect(await writeFrom(world, '2001:db8:0:2::1')).toBe('applied')
})
