/**
 * Frames that RFC 6455 forbids, and those that it allows and few clients send, after the cases of the Autobahn test
 * suite. Bun does the framing: this holds what datum relies on, and that nobody else notices. Invariant 9.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { CloseCode } from '../../src/wire/close-codes.ts'
import { FRAME_BYTES_MAX } from '../../src/wire/limits.ts'
import { createWorld, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'
import { closePayload, frameBytes, handshake, OPCODE, RawSocket } from '../support/raw-socket.ts'
import { mintToken } from '../support/token.ts'
import type { View, WireClient } from '../support/wire-client.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const PING = '{"type":"ping"}'

let world: World
let witness: { client: WireClient; view: View }

beforeAll(async () => {
  world = await createWorld()
  witness = await world.watch(alice)
})

// One world for all cases: whatever one leaves behind, the next and the witness must not notice.
afterAll(async () => {
  await world.barrier(witness.client, alice)
  await world.untilTrue(witness.client, witness.view, alice)
  await world.close()
})

/** A socket that has authenticated. */
async function open(): Promise<RawSocket> {
  const raw = await RawSocket.open(world.server.url)
  raw.write(frameBytes(JSON.stringify({ type: 'auth', token: await mintToken(alice) })))
  await raw.until(() => raw.messages.some(({ type }) => type === 'authenticated'), 'authenticated')
  return raw
}

const pongs = (raw: RawSocket) => raw.messages.filter(({ type }) => type === 'pong').length

/** 1002 protocol error, 1007 not UTF-8, 1009 too big (RFC 6455 §7.4.1). */
const FORBIDDEN: readonly (readonly [what: string, bytes: readonly Uint8Array[], code: number])[] = [
  ['§5.1: a frame without a mask', [frameBytes(PING, { masked: false })], 1002],
  ['§5.2: reserved bit 1', [frameBytes(PING, { reserved: 4 })], 1002],
  ['§5.2: reserved bit 2', [frameBytes(PING, { reserved: 2 })], 1002],
  ['§5.2: reserved bit 3', [frameBytes(PING, { reserved: 1 })], 1002],
  ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map(
    (opcode) => [`§5.2: the reserved opcode ${opcode}`, [frameBytes(PING, { opcode })], 1002] as const,
  ),
  [
    '§5.4: a message inside another one’s fragments',
    [frameBytes('{"type":', { fin: false }), frameBytes(PING)],
    1002,
  ],
  ['§5.4: a continuation of nothing', [frameBytes(PING, { opcode: OPCODE.continuation })], 1002],
  ['§5.5: a ping in fragments', [frameBytes('x', { opcode: OPCODE.ping, fin: false })], 1002],
  ['§5.5: a ping of 126 bytes', [frameBytes('x'.repeat(126), { opcode: OPCODE.ping })], 1002],
  ['§5.5: a pong of 126 bytes', [frameBytes('x'.repeat(126), { opcode: OPCODE.pong })], 1002],
  [
    '§5.5: a close of 126 bytes',
    [frameBytes(closePayload(1000, 'x'.repeat(124)), { opcode: OPCODE.close })],
    1002,
  ],
  ['§5.5.1: a close of one byte', [frameBytes(new Uint8Array([3]), { opcode: OPCODE.close })], 1002],
  ...[0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535].map(
    (code) =>
      [
        `§7.4: a close with the code ${code}`,
        [frameBytes(closePayload(code), { opcode: OPCODE.close })],
        1002,
      ] as const,
  ),
  [
    '§8.1: a close whose reason is not UTF-8',
    [frameBytes(closePayload(1000, new Uint8Array([0xc3, 0x28])), { opcode: OPCODE.close })],
    1007,
  ],
  ['§8.1: text that is not UTF-8', [frameBytes(new Uint8Array([0xc3, 0x28]))], 1007],
  ['§8.1: half of a surrogate pair', [frameBytes(new Uint8Array([0xed, 0xa0, 0x80]))], 1007],
  ['§8.1: an overlong form', [frameBytes(new Uint8Array([0xc0, 0xaf]))], 1007],
  [
    '§8.1: text that is not UTF-8 only once it is put together',
    [
      frameBytes(new Uint8Array([0xc3]), { fin: false }),
      frameBytes(new Uint8Array([0x28]), { opcode: OPCODE.continuation }),
    ],
    1007,
  ],
  ['a length of 2⁶³', [frameBytes('', { announced: 1n << 63n })], 1009],
  ['a length of 2⁴⁰', [frameBytes('', { announced: 1n << 40n })], 1009],
  [
    'fragments that are too much together',
    Array.from({ length: 9 }, (_, n) =>
      frameBytes(Buffer.alloc(FRAME_BYTES_MAX / 4, 0x78), {
        fin: false,
        opcode: n === 0 ? OPCODE.text : OPCODE.continuation,
      }),
    ),
    1009,
  ],
]

test.each(FORBIDDEN)('I9: %s ends its own socket', async (_what, bytes, expected) => {
  const raw = await open()
  for (const part of bytes) raw.write(part)
  const { code, reason } = await raw.untilClosed()
  expect(code).toBe(expected)
  expect(reason).not.toMatch(/\.ts|node_modules/)
  expect(pongs(raw)).toBe(0)
})

const ALLOWED: readonly (readonly [what: string, bytes: readonly Uint8Array[]])[] = [
  [
    '§5.4: a message in fragments, one of them empty, cut inside a character',
    [
      frameBytes('{"type":"subscribe","sub":"', { fin: false }),
      frameBytes(new Uint8Array([0xc3]), { fin: false, opcode: OPCODE.continuation }),
      frameBytes('', { fin: false, opcode: OPCODE.continuation }),
      frameBytes(Buffer.concat([Buffer.from([0xa9]), Buffer.from('","bbox":[0,0,1,1]}')]), {
        opcode: OPCODE.continuation,
      }),
      frameBytes(PING),
    ],
  ],
  [
    '§5.5.2: a ping between the fragments of a message',
    [
      frameBytes('{"type":', { fin: false }),
      frameBytes('now', { opcode: OPCODE.ping }),
      frameBytes('"ping"}', { opcode: OPCODE.continuation }),
    ],
  ],
  [
    'a message of one byte in each fragment',
    [...PING].map((character, n) =>
      frameBytes(character, {
        fin: n === PING.length - 1,
        opcode: n === 0 ? OPCODE.text : OPCODE.continuation,
      }),
    ),
  ],
  ['§5.5.2: a ping of 125 bytes', [frameBytes('x'.repeat(125), { opcode: OPCODE.ping }), frameBytes(PING)]],
  ['§5.5.3: a pong that nobody asked for', [frameBytes('x', { opcode: OPCODE.pong }), frameBytes(PING)]],
]

test.each(ALLOWED)('%s is taken', async (_what, bytes) => {
  const raw = await open()
  for (const part of bytes) raw.write(part)
  await raw.until(() => pongs(raw) === 1, 'the pong')
  const pings = bytes.filter((part) => (part[0]! & 15) === OPCODE.ping).length
  expect(raw.frames.filter(({ opcode }) => opcode === OPCODE.pong)).toHaveLength(pings)
  raw.destroy()
})

test.each([
  ['1000', closePayload(1000, 'bye'), 1000],
  ['3000', closePayload(3000), 3000],
  ['4999', closePayload(4999), 4999],
  ['no code', Buffer.alloc(0), null],
] as const)('§7.1.5: a close with %s is answered with the same', async (_what, payload, code) => {
  const raw = await open()
  raw.write(Buffer.concat([frameBytes(payload, { opcode: OPCODE.close }), frameBytes(PING)]))
  expect((await raw.untilClosed()).code).toBe(code)
  expect(pongs(raw)).toBe(0)
})

test('I9: what a session refuses, fragments and all, has its own close code', async () => {
  const raw = await open()
  raw.write(frameBytes('x', { fin: false, opcode: OPCODE.binary }))
  raw.write(frameBytes('y', { opcode: OPCODE.continuation }))
  expect((await raw.untilClosed()).code).toBe(CloseCode.badMessage)
})

test('I9: a connection that is half closed, cut, or left in the middle of a frame leaves nothing behind', async () => {
  const half = await open()
  half.end()
  await half.until(() => half.closed, 'the server ended it too')
  for (let n = 0; n < 20; n++) {
    const raw = await open()
    const subscribe = frameBytes(JSON.stringify({ type: 'subscribe', sub: 's', bbox: [8, 47, 9, 48] }))
    raw.write(n % 2 === 0 ? subscribe.subarray(0, subscribe.length - n) : subscribe)
    raw.destroy()
  }
  // The witness's are left.
  await untilMetric('datum_sockets', 1)
  await untilMetric('datum_subscriptions', 1)
})

test('I9: handshakes that never end keep nobody out', async () => {
  const slow = await Promise.all(Array.from({ length: 200 }, () => RawSocket.connect(world.server.url)))
  const text = handshake(world.server.url)
  for (const [n, raw] of slow.entries()) raw.write(text.slice(0, 10 + (n % (text.length - 12))))
  const another = await world.watch(alice)
  await world.barrier(another.client, alice)
  another.client.kill()
  for (const raw of slow) raw.destroy()
})

const BROKEN_REQUESTS: readonly (readonly [what: string, status: number, text: (url: string) => string])[] = [
  ['no WebSocket key', 426, (url) => handshake(url).replace(/Sec-WebSocket-Key.*\r\n/, '')],
  ['a key that is none', 426, (url) => handshake(url, { 'Sec-WebSocket-Key': 'x' })],
  ['another version', 426, (url) => handshake(url, { 'Sec-WebSocket-Version': '7' })],
  ['no upgrade', 426, (url) => handshake(url).replace('Upgrade: websocket\r\n', '')],
  ['another method', 426, (url) => handshake(url).replace('GET', 'POST')],
  ['no HTTP', 400, () => `\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03${'\0'.repeat(40)}\r\n\r\n`],
  ['a header of 100 KB', 431, (url) => handshake(url, { 'X-Long': 'x'.repeat(100_000) })],
  ['ten thousand headers', 431, (url) => handshake(url, manyHeaders(10_000))],
  [
    'a body of a megabyte',
    413,
    (url) =>
      handshake(url, { 'Content-Length': '1000000' })
        .replace('GET', 'POST')
        .replace('Upgrade: websocket\r\n', ''),
  ],
  ['two lengths', 400, (url) => handshake(url, { 'Content-Length': '5, 6' })],
  ['a path of 64 KB', 431, (url) => handshake(url).replace('/ws', `/ws?${'x'.repeat(65_536)}`)],
]

test.each(BROKEN_REQUESTS)('I9: a handshake with %s is answered with %i', async (_what, status, text) => {
  const raw = await RawSocket.connect(world.server.url)
  raw.write(text(world.server.url))
  await raw.until(() => raw.text.includes('\r\n\r\n'), 'an answer')
  expect(raw.text).toStartWith(`HTTP/1.1 ${status} `)
  raw.destroy()
})

function manyHeaders(count: number): Record<string, string> {
  return Object.fromEntries(Array.from({ length: count }, (_, n) => [`X-${n}`, 'x']))
}

async function untilMetric(name: string, value: number): Promise<void> {
  const line = new RegExp(`^${name} ${value}$`, 'm')
  const giveUpAt = Date.now() + TEST_TIMEOUT_MS / 2
  for (;;) {
    const text = await (await fetch(`${world.server.url}/metrics`)).text()
    if (line.test(text)) return
    if (Date.now() > giveUpAt) throw new Error(`${name} never was ${value}:\n${text}`)
    await Bun.sleep(20)
  }
}
