/** The client on a real WebSocket and the real clock, against the smallest server that speaks the protocol. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { DatumClient, type WebSocketConstructor } from '../../client/index.ts'
import { SUBPROTOCOL } from '../../src/wire/limits.ts'
import type { ClientMessage, ServerMessage } from '../../src/wire/messages.ts'
import { BOX, PLACES, place, placeId } from './fake-world.ts'

let server: Bun.Server<undefined>
let offered: string | null = null
let requestedUrl = ''

beforeAll(() => {
  server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch(request, self) {
      offered = request.headers.get('sec-websocket-protocol')
      requestedUrl = request.url
      const headers = { 'sec-websocket-protocol': SUBPROTOCOL }
      return self.upgrade(request, { headers }) ? undefined : new Response(null, { status: 400 })
    },
    websocket: {
      message(socket, text) {
        const message = JSON.parse(text as string) as ClientMessage
        const say = (...messages: ServerMessage[]) => {
          for (const one of messages) socket.send(JSON.stringify(one))
        }
        if (message.type === 'auth') {
          if (message.token === 'good') say({ type: 'authenticated', expiresAt: null })
          else socket.close(4401)
        } else if (message.type === 'subscribe') {
          const { sub } = message
          say(
            { type: 'subscribed', sub, table: PLACES, resumed: false },
            { type: 'view', sub, rows: [place(1)], complete: 0, cursor: 'c' },
          )
        } else if (message.type === 'write') {
          const { batch } = message
          say(
            { type: 'outcome', batch, edits: [{ status: 'applied', id: placeId(1) }] },
            { type: 'view', sub: 's1', rows: [place(1, 'renamed', 'by the server')], settled: [batch] },
          )
        }
      },
    },
  })
})
afterAll(() => server.stop(true))

test('connects, reads, writes and disconnects', async () => {
  const serverUrl = `http://127.0.0.1:${server.port}`
  const db = await DatumClient.connect({ serverUrl, bbox: BOX, token: async () => 'good' })
  expect(offered).toBe(SUBPROTOCOL)
  expect(requestedUrl).toEndWith('/ws')
  expect(db.rows.get(placeId(1))).toEqual(place(1))
  const settled = new Promise<void>((resolve) => {
    db.onChange(({ upserts }) => {
      if (upserts[0]?.kind === 'by the server') resolve()
    })
  })
  await db.update(placeId(1), { name: 'renamed' })
  await settled
  expect(db.rows.get(placeId(1))).toEqual(place(1, 'renamed', 'by the server'))
  await db.disconnect()
})

test('a bad token rejects with unauthorized', async () => {
  const serverUrl = `ws://127.0.0.1:${server.port}`
  const refused = await DatumClient.connect({ serverUrl, bbox: BOX, token: 'bad' }).catch((error) => error)
  expect(refused).toMatchObject({ name: 'DatumError', code: 'unauthorized' })
})

test('the global WebSocket fits the option', () => {
  const given: WebSocketConstructor = WebSocket
  expect(given).toBe(WebSocket)
})
