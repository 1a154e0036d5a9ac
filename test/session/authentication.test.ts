/** Who gets in, and what anybody sees before that. Invariant 1. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { SignJWT } from 'jose'
import { CloseCode } from '../../src/wire/close-codes.ts'
import { AUTH_DEADLINE_SECONDS, PRE_AUTH_FRAME_BYTES_MAX, SUBPROTOCOL } from '../../src/wire/limits.ts'
import { createWorld, onlyOrg, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'
import { mintToken, mintTokenOfText, TEST_SECRET } from '../support/token.ts'
import type { WireClient } from '../support/wire-client.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

/** Waits for the close and expects that nothing but an error was sent before. */
async function expectRefused(client: WireClient, code: number = CloseCode.unauthorized): Promise<void> {
  expect((await client.untilClosed()).code).toBe(code)
  expect(client.frames.map((frame) => frame.type).filter((type) => type !== 'error')).toEqual([])
  for (const frame of client.frames) if (frame.type === 'error') expect(frame.code).toBe(code)
}

test('I1: a valid token is answered with its expiry, and the socket works', async () => {
  await using world = await createWorld()
  const exp = Math.floor(Date.now() / 1000) + 600
  const id = await world.put({ org: 'a', name: 'one' })
  await world.put({ org: 'b', name: 'other' })
  const client = await world.open({ allowed: onlyOrg('a') })
  expect(client.protocol).toBe(SUBPROTOCOL)
  expect(await client.authenticate(await mintToken({ ...alice, exp }))).toEqual({
    type: 'authenticated',
    expiresAt: exp,
  })
  const view = await client.subscribe({ bbox: ZURICH })
  expect([...view.rows.keys()]).toEqual([id])
})

test('I1: anything but a token first is refused with 4401 and nothing is sent', async () => {
  await using world = await createWorld()
  await world.put({ org: 'a' })
  const messages = [
    { type: 'subscribe', sub: 's', bbox: ZURICH },
    { type: 'subscribe', sub: 's', table: 'nonsense', bbox: ZURICH },
    { type: 'write', batch: crypto.randomUUID(), edits: [{ op: 'insert', columns: { org_id: 'a' } }] },
    { type: 'ping' },
    { type: 'bbox', sub: 's', seq: 1, bbox: ZURICH },
    { type: 'unsubscribe', sub: 's' },
  ] as const
  for (const message of messages) {
    const client = await world.open()
    client.send(message)
    await expectRefused(client)
  }
  expect(await world.admin`select count(*)::int as n from features`).toMatchObject([{ n: 1 }])
})

test('I1: frames sent right behind a bad token are not obeyed', async () => {
  await using world = await createWorld()
  await world.put({ org: 'a' })
  const client = await world.open()
  client.send({
    type: 'auth',
    token: await mintToken(alice, new TextEncoder().encode('another secret'.repeat(4))),
  })
  client.send({ type: 'subscribe', sub: 's', bbox: ZURICH })
  client.send({
    type: 'write',
    batch: crypto.randomUUID(),
    edits: [{ op: 'insert', columns: { org_id: 'a' } }],
  })
  await expectRefused(client)
  expect(await world.admin`select count(*)::int as n from features`).toMatchObject([{ n: 1 }])
})

test('I1: frames sent right behind a good token are answered in order, after it', async () => {
  await using world = await createWorld()
  await world.put({ org: 'a' })
  const client = await world.open({ allowed: onlyOrg('a') })
  client.send({ type: 'auth', token: await mintToken(alice) })
  const view = await client.subscribe({ bbox: ZURICH })
  expect(view.rows.size).toBe(1)
  expect(client.frames[0]?.type).toBe('authenticated')
})

test('I1: tokens that do not verify are refused', async () => {
  await using world = await createWorld()
  const nowSeconds = Math.floor(Date.now() / 1000)
  const good = await mintToken(alice)
  const [header, payload, signature] = good.split('.') as [string, string, string]
  const noneHeader = Buffer.from('{"alg":"none"}').toString('base64url')
  const tokens: Record<string, string> = {
    empty: '',
    nonsense: 'nonsense',
    'three dots': '..',
    'another secret': await mintToken(alice, new TextEncoder().encode('x'.repeat(40))),
    'alg none': `${noneHeader}.${payload}.`,
    'alg none with signature': `${noneHeader}.${payload}.${signature}`,
    'no signature': `${header}.${payload}.`,
    'changed payload': `${header}.${Buffer.from(JSON.stringify({ sub: 'mallory', exp: nowSeconds + 999 })).toString('base64url')}.${signature}`,
    'another algorithm': await new SignJWT({ ...alice, exp: nowSeconds + 999 })
      .setProtectedHeader({ alg: 'HS512' })
      .sign(TEST_SECRET),
    expired: await mintToken({ ...alice, exp: nowSeconds - 10 }),
    'no exp': await mintTokenOfText('{"sub":"alice","org_id":"a"}'),
    'exp as text': await mintTokenOfText(`{"sub":"alice","exp":"${nowSeconds + 999}"}`),
    'not yet valid': await mintToken({ ...alice, nbf: nowSeconds + 900 }),
    'payload is an array': await mintTokenOfText('[1]'),
    'claims that differ only in case': await mintTokenOfText(
      `{"sub":"alice","org_id":"a","ORG_ID":"b","exp":${nowSeconds + 999}}`,
    ),
    'the same claim twice': await mintTokenOfText(
      `{"sub":"alice","org_id":"a","org_id":"b","exp":${nowSeconds + 999}}`,
    ),
  }
  for (const [what, token] of Object.entries(tokens)) {
    const client = await world.open()
    client.send({ type: 'auth', token })
    await expectRefused(client).catch((error) => {
      throw new Error(`${what}: ${(error as Error).message}`)
    })
  }
})

test('I12: what a refused socket is told does not hold the token', async () => {
  await using world = await createWorld()
  const token = await mintToken({ ...alice, exp: 1, secret_claim: 'do-not-tell' })
  const client = await world.open()
  client.send({ type: 'auth', token })
  const { reason } = await client.untilClosed()
  const told = JSON.stringify(client.frames) + reason
  expect(told).not.toContain(token.split('.')[1] as string)
  expect(told).not.toContain('do-not-tell')
})

test('issuer and audience are checked where they are configured', async () => {
  await using world = await createWorld({ auth: { issuers: ['https://issuer.test'], audiences: ['datum'] } })
  const good = { ...alice, iss: 'https://issuer.test', aud: ['other', 'datum'] }
  await world.connect(good)
  for (const bad of [{ ...good, iss: 'https://evil.test' }, { ...good, aud: 'other' }, alice]) {
    const client = await world.open()
    client.send({ type: 'auth', token: await mintToken(bad) })
    await expectRefused(client)
  }
})

test('I1: a first frame that is too large is refused with 4413', async () => {
  await using world = await createWorld()
  const client = await world.open()
  client.sendRaw(JSON.stringify({ type: 'auth', token: 'x'.repeat(PRE_AUTH_FRAME_BYTES_MAX + 1) }))
  await expectRefused(client, CloseCode.tooLarge)
})

test('I1: a first frame that is no message is refused', async () => {
  await using world = await createWorld()
  for (const frame of [
    '',
    'x',
    '[]',
    'null',
    '{}',
    '{"type":"auth"}',
    '{"type":"auth","token":7}',
    new Uint8Array(8),
  ]) {
    const client = await world.open()
    client.sendRaw(frame)
    const { code } = await client.untilClosed()
    expect([CloseCode.badMessage, CloseCode.unauthorized] as number[]).toContain(code)
    expect(client.frames.every((sent) => sent.type === 'error')).toBe(true)
  }
})

test('I1: a socket that says nothing is closed with 4408 after the deadline', async () => {
  await using world = await createWorld()
  const client = await world.open()
  const openedAt = performance.now()
  await expectRefused(client, CloseCode.authTimeout)
  // It must not be cut off early: a slow token endpoint has all of the deadline.
  expect(performance.now() - openedAt).toBeGreaterThan((AUTH_DEADLINE_SECONDS - 1) * 1000)
})

test('a server without auth asks for nothing and looks at no token', async () => {
  await using world = await createWorld({
    auth: null,
    tables: [features({ policies: '' })],
  })
  const id = await world.put({ org: 'a' })
  const client = await world.open()
  expect([...(await client.subscribe({ bbox: ZURICH })).rows.keys()]).toEqual([id])
  expect(await client.authenticate('not a token at all')).toEqual({ type: 'authenticated', expiresAt: null })
  const { edits } = await client.write([{ op: 'update', id, columns: { name: 'written' } }])
  expect(edits).toMatchObject([{ status: 'applied', id }])
})

test('a server without auth under row security serves what the plain role may see: nothing here', async () => {
  await using world = await createWorld({ auth: null })
  await world.put({ org: 'a' })
  const client = await world.open()
  client.send({ type: 'auth', token: await mintToken(alice) })
  expect((await client.subscribe({ bbox: ZURICH })).rows.size).toBe(0)
})

test('subprotocols: none offered is version 1, an unknown one is refused', async () => {
  await using world = await createWorld()
  const silent = await world.open({ protocols: null })
  await silent.authenticate(await mintToken(alice))
  const choosy = await world.open({ protocols: ['datum.v9', SUBPROTOCOL] })
  expect(choosy.protocol).toBe(SUBPROTOCOL)
  const upgrade = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13' }
  const answer = await fetch(`${world.server.url}/ws`, {
    headers: {
      ...upgrade,
      'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
      'Sec-WebSocket-Protocol': 'datum.v9',
    },
  })
  expect(answer.status).toBe(400)
})

test('a token in the URL is not looked at', async () => {
  await using world = await createWorld()
  const url = `${world.server.url.replace(/^http/, 'ws')}/ws?token=${await mintToken(alice)}`
  const socket = new WebSocket(url)
  const frames: string[] = []
  socket.onmessage = ({ data }) => frames.push(String(data))
  socket.onopen = () => socket.send(JSON.stringify({ type: 'subscribe', sub: 's', bbox: ZURICH }))
  const code = await new Promise((resolve) => {
    socket.onclose = (event) => resolve(event.code)
  })
  expect(code).toBe(CloseCode.unauthorized)
  expect(frames.every((frame) => JSON.parse(frame).type === 'error')).toBe(true)
})

test('an origin that is not allowed gets no socket', async () => {
  await using world = await createWorld({ config: { allowedOrigins: ['https://app.test'] } })
  await world.connect(alice, { headers: { Origin: 'https://app.test' } })
  for (const origin of ['https://evil.test', 'https://app.test.evil.test', 'null'])
    expect(world.open({ headers: { Origin: origin } })).rejects.toThrow()
})
