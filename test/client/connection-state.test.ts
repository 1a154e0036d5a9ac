import { describe, expect, test } from 'bun:test'
import {
  type ConnectionEvent,
  type ConnectionState,
  type History,
  NEW_HISTORY,
  nextState,
} from '../../client/connection-state.ts'
import { DatumError } from '../../client/datum-error.ts'
import { CloseCode } from '../../src/wire/close-codes.ts'

const reason = new DatumError('disconnected', 'x')
const established: History = { failures: 0, refusals: 0, established: true }
const context = { nowMs: 0, random: () => 0.5, token: 'function' as const }

function stateIn(phase: ConnectionState['phase'], history = established): ConnectionState {
  switch (phase) {
    case 'waiting':
      return { phase, history, delayMs: 1, hasty: true, reason }
    case 'ready':
      return { phase, history, sinceMs: 0 }
    case 'stopped':
      return { phase, reason }
    default:
      return { phase, history }
  }
}

const closed = (code: number): ConnectionEvent => ({ type: 'closed', code, detail: null })
const EVENTS: Record<string, ConnectionEvent> = {
  start: { type: 'start' },
  token: { type: 'token' },
  token_failed: { type: 'token_failed', error: new DatumError('token_failed', 'x') },
  accepted: { type: 'accepted' },
  lost: closed(1006),
  restarting: closed(CloseCode.restart),
  refused: closed(CloseCode.unauthorized),
  misunderstood: closed(CloseCode.badMessage),
  retry: { type: 'retry' },
  wake: { type: 'wake' },
  restart: { type: 'restart' },
  stop: { type: 'stop', reason },
}

// Every event in every phase; `.` means that nothing changes.
const TABLE: Record<string, string> = {
  //              idle    token   opening ready   waiting stopped
  start: '        token   .       .       .       .       .',
  token: '        .       opening .       .       .       .',
  token_failed: ' .       waiting .       .       .       .',
  accepted: '     .       .       ready   .       .       .',
  lost: '         .       waiting waiting waiting .       .',
  restarting: '   .       waiting waiting waiting .       .',
  refused: '      .       waiting waiting waiting .       .',
  misunderstood: '.       stopped stopped stopped .       .',
  retry: '        .       .       .       .       token   .',
  wake: '         .       .       .       .       token   .',
  restart: '      .       .       .       token   .       .',
  stop: '         stopped stopped stopped stopped stopped .',
}
const PHASES = ['idle', 'token', 'opening', 'ready', 'waiting', 'stopped'] as const

describe.each(Object.keys(TABLE))('%s', (name) => {
  const expected = TABLE[name]!.trim().split(/\s+/)
  test.each(PHASES.map((phase, index) => [phase, expected[index]!] as const))('in %s: %s', (phase, next) => {
    const before = stateIn(phase)
    const after = nextState(before, EVENTS[name]!, context)
    if (next === '.') expect(after).toBe(before)
    else expect(after.phase).toBe(next as ConnectionState['phase'])
  })
})

const delayOf = (state: ConnectionState) => (state.phase === 'waiting' ? state.delayMs : null)

test('the wait doubles from loss to loss up to 30 s, with jitter in its upper half', () => {
  const delays = [0, 1, 2, 3, 4, 5, 6, 60].map((failures) =>
    delayOf(nextState(stateIn('opening', { ...established, failures }), closed(1006), context)),
  )
  expect(delays).toEqual([750, 1500, 3000, 6000, 12_000, 22_500, 22_500, 22_500])
  const at = (random: number) =>
    delayOf(nextState(stateIn('opening'), closed(1006), { ...context, random: () => random }))
  expect([at(0), at(0.999999)]).toEqual([500, 1000])
})

test('a connection that lasted starts the backoff anew; one that did not, does not', () => {
  const ready = stateIn('ready', { ...established, failures: 4 })
  expect(delayOf(nextState(ready, closed(1006), { ...context, nowMs: 60_000 }))).toBe(750)
  expect(delayOf(nextState(ready, closed(1006), { ...context, nowMs: 500 }))).toBe(12_000)
})

test('a rate limit is waited out, even if the network comes back meanwhile', () => {
  const waiting = nextState(stateIn('ready'), closed(CloseCode.rateLimited), context)
  expect(delayOf(waiting)).toBe(15_000)
  expect(nextState(waiting, { type: 'wake' }, context)).toBe(waiting)
})

test('without a token function a refused token is the end', () => {
  for (const token of ['none', 'static'] as const) {
    const state = nextState(stateIn('opening'), closed(CloseCode.unauthorized), { ...context, token })
    expect(state).toMatchObject({ phase: 'stopped', reason: { code: 'unauthorized' } })
  }
})

test('a token function has one more try on the first connect, and all it wants later', () => {
  const refuse = (state: ConnectionState) => nextState(state, closed(CloseCode.unauthorized), context)
  const first = refuse(stateIn('opening', NEW_HISTORY))
  expect(first.phase).toBe('waiting')
  const again = {
    phase: 'opening',
    history: first.phase === 'waiting' ? first.history : NEW_HISTORY,
  } as const
  expect(refuse(again)).toMatchObject({ phase: 'stopped', reason: { code: 'unauthorized' } })
  expect(refuse(stateIn('opening', { ...established, refusals: 9 })).phase).toBe('waiting')
})

test('an accepted token makes earlier refusals history', () => {
  const state = nextState(stateIn('opening', { ...established, refusals: 3 }), { type: 'accepted' }, context)
  expect(state).toMatchObject({ phase: 'ready', history: { refusals: 0 } })
})
