/** One user's large frames, on however many sockets, take a share of the thread and no more. Invariant 9. */
import { expect, test } from 'bun:test'
import { ANONYMOUS, type Principal } from '../../src/auth/principal.ts'
import { LargeFrames } from '../../src/session/large-frames.ts'
import { Session, type SessionContext } from '../../src/session/session.ts'
import { CloseCode } from '../../src/wire/close-codes.ts'
import { FRAME_BYTES_MAX, LARGE_FRAME_CHARACTERS } from '../../src/wire/limits.ts'
import { silentSocket } from '../support/silent-socket.ts'

const turn = () => new Promise((resolve) => setTimeout(resolve, 0))

/** A clock that the work moves, and rests that end when the test says so. */
function makeFrames() {
  let now = 0
  const rests: { readonly milliseconds: number; readonly end: () => void }[] = []
  const frames = new LargeFrames(
    () => now,
    (milliseconds) => new Promise((end) => void rests.push({ milliseconds, end })),
  )
  const taken: string[] = []
  const take = (user: string, name: string, milliseconds: number) =>
    frames.take(user, () => {
      now += milliseconds
      taken.push(name)
    })
  return { frames, rests, taken, take }
}

test('I9: who has had a turn rests four times as long as it took, and nobody else does', async () => {
  const { rests, taken, take } = makeFrames()
  await take('greedy', 'greedy 1', 100)
  void take('greedy', 'greedy 2', 100)
  await take('modest', 'modest', 1)
  await turn()
  expect(taken).toEqual(['greedy 1', 'modest'])
  expect(rests.map(({ milliseconds }) => milliseconds)).toEqual([400, 4])
  rests[0]!.end()
  await turn()
  expect(taken).toEqual(['greedy 1', 'modest', 'greedy 2'])
})

test('I9: a frame that cannot be taken is told so, and costs a turn', async () => {
  const { frames, rests, taken, take } = makeFrames()
  const failed = frames.take('user', () => {
    throw new Error('no message')
  })
  await expect(failed).rejects.toThrow('no message')
  void take('user', 'next', 1)
  await turn()
  expect(taken).toEqual([])
  rests[0]!.end()
  await turn()
  expect(taken).toEqual(['next'])
})

const user = (subject: string): Principal => ({ ...ANONYMOUS, subject })

/** Sockets whose users are known, and the subscriptions that they ask for. */
function makeSessions(largeFrames: LargeFrames) {
  const opened: string[] = []
  const context = {
    verifier: { verify: async (token: string) => user(token) },
    expiryToleranceSeconds: null,
    largeFrames,
    hub: {
      tableNamed: () => ({ geometry: null }),
      open: async ({ name }: { name: string }) => {
        opened.push(name)
        return { refused: { code: 'error', message: '' } }
      },
    },
    metrics: { closed: () => {}, frameSent: () => {} },
  } as unknown as SessionContext
  const connect = async (subject: string) => {
    const { socket, closed } = silentSocket()
    const session = new Session(socket, context)
    session.onFrame(JSON.stringify({ type: 'auth', token: subject }))
    await turn()
    return { session, closed }
  }
  return { opened, connect }
}

const subscribe = (sub: string, length: number) =>
  JSON.stringify({ type: 'subscribe', sub, resume: { cursor: 'x'.repeat(length), held: [] } })

test('I9: the sockets of one user wait for each other with large frames only, and not for another user', async () => {
  const { frames, rests } = makeFrames()
  const { opened, connect } = makeSessions(frames)
  const [first, second, other] = [await connect('alice'), await connect('alice'), await connect('bob')]
  first.session.onFrame(subscribe('first', LARGE_FRAME_CHARACTERS))
  await turn()
  second.session.onFrame(subscribe('small', 10))
  await turn()
  second.session.onFrame(subscribe('second', LARGE_FRAME_CHARACTERS))
  other.session.onFrame(subscribe('other', FRAME_BYTES_MAX - 1_000))
  await turn()
  expect(opened).toEqual(['first', 'small', 'other'])
  rests[0]!.end()
  await turn()
  expect(opened).toEqual(['first', 'small', 'other', 'second'])
})

test('a large frame that is no message closes its socket with 4400, and one behind it is not obeyed', async () => {
  const { frames } = makeFrames()
  const { opened, connect } = makeSessions(frames)
  const { session, closed } = await connect('alice')
  session.onFrame(`{"type":"${'x'.repeat(LARGE_FRAME_CHARACTERS)}"}`)
  session.onFrame(subscribe('behind', 10))
  await turn()
  expect(closed).toEqual([CloseCode.badMessage])
  expect(opened).toEqual([])
})

test('I10: a large frame that waits for its turn is not obeyed once its socket is gone', async () => {
  const { frames, rests } = makeFrames()
  const { opened, connect } = makeSessions(frames)
  const [first, second] = [await connect('alice'), await connect('alice')]
  first.session.onFrame(subscribe('first', LARGE_FRAME_CHARACTERS))
  second.session.onFrame(subscribe('second', LARGE_FRAME_CHARACTERS))
  await turn()
  second.session.onClose()
  rests[0]!.end()
  await turn()
  expect(opened).toEqual(['first'])
})
