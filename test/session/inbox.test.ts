/** What waits for its turn on one socket is bounded. Invariant 10. */
import { expect, test } from 'bun:test'
import { ANONYMOUS } from '../../src/auth/principal.ts'
import { Session, type SessionContext } from '../../src/session/session.ts'
import { CloseCode } from '../../src/wire/close-codes.ts'
import { FRAME_BYTES_MAX, INBOX_MESSAGES_MAX, WAITING_CHARACTERS_MAX } from '../../src/wire/limits.ts'
import { silentSocket } from '../support/silent-socket.ts'

const token = (text: string) => JSON.stringify({ type: 'auth', token: text })

/** A session whose first token was good, and whose second is being verified for ever: the rest waits. */
async function makeWaitingSession() {
  const { socket, closed } = silentSocket()
  const context = {
    verifier: { verify: (text: string) => (text === 'good' ? ANONYMOUS : new Promise(() => {})) },
    expiryToleranceSeconds: null,
    metrics: { closed: () => {}, frameSent: () => {} },
  } as unknown as SessionContext
  const session = new Session(socket, context)
  session.onFrame(token('good'))
  await Bun.sleep(0)
  session.onFrame(token('never answered'))
  return { session, closed }
}

test('I10: so many messages may wait for the one before them, and one more ends the socket', async () => {
  const { session, closed } = await makeWaitingSession()
  for (let n = 0; n < INBOX_MESSAGES_MAX; n++) session.onFrame('{"type":"ping"}')
  expect(closed).toEqual([])
  session.onFrame('{"type":"ping"}')
  expect(closed).toEqual([CloseCode.rateLimited])
})

test('I10: so many characters may wait, however few messages they are', async () => {
  const { session, closed } = await makeWaitingSession()
  const large = token('x'.repeat(FRAME_BYTES_MAX - 100))
  for (let left = WAITING_CHARACTERS_MAX; left > large.length; left -= large.length) session.onFrame(large)
  expect(closed).toEqual([])
  session.onFrame(large)
  expect(closed).toEqual([CloseCode.rateLimited])
})
