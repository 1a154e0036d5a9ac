/** Whose address limits are counted by. A header that anybody can send must not choose it. Invariant 10. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { clientAddressBehind, isAddressRange } from '../../src/client-address.ts'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'

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
  ['IPv6', ['fd00::/8', '::1'], 'fd00::1', '2001:db8::7, ::1', '2001:db8::7'],
] as const)('I10: %s', (_what, trusted, peer, header, expected) => {
  expect(clientAddressBehind(trusted)(peer, header)).toBe(expected)
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
  const status = async () => {
    const url = `${world.server.url}/ws`
    const headers = {
      connection: 'upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
      'x-forwarded-for': crypto.randomUUID(),
    }
    return (await fetch(url, { headers })).status
  }
  const first = await world.open()
  await world.open()
  expect(await status()).toBe(429)
  first.kill()
  await first.untilClosed()
  await world.open()
})
