/**
 * The life of a connection as a table of states and events: pure, with time and chance as arguments. `connection.ts`
 * does on entering a state what the state says.
 */
import { CloseCode } from '../src/wire/close-codes.ts'
import { backoffMs, RATE_LIMITED, RECONNECT } from './backoff.ts'
import { DatumError } from './datum-error.ts'

/** What is remembered across states. */
export interface History {
  /** Attempts in a row that brought no lasting connection. */
  readonly failures: number
  /** Tokens in a row that the server refused. */
  readonly refusals: number
  /** Whether the application has its `DatumClient`, so that nothing short of the hopeless may end it. */
  readonly established: boolean
}

export type ConnectionState =
  | { readonly phase: 'idle'; readonly history: History }
  /** The token source has been asked. */
  | { readonly phase: 'token'; readonly history: History }
  /** A socket is opening or authenticating. */
  | { readonly phase: 'opening'; readonly history: History }
  /** Messages may be sent. */
  | { readonly phase: 'ready'; readonly history: History; readonly sinceMs: number }
  | {
      readonly phase: 'waiting'
      readonly history: History
      readonly delayMs: number
      /** Whether a network that comes back, or a device that wakes, is a reason to try sooner. */
      readonly hasty: boolean
      readonly reason: DatumError
    }
  | { readonly phase: 'stopped'; readonly reason: DatumError }

export type ConnectionEvent =
  | { readonly type: 'start' }
  | { readonly type: 'token' }
  | { readonly type: 'token_failed'; readonly error: DatumError }
  | { readonly type: 'accepted' }
  | { readonly type: 'established' }
  /** The socket is gone. `detail`: what the server said about it, null if nothing. */
  | { readonly type: 'closed'; readonly code: number; readonly detail: string | null }
  | { readonly type: 'retry' }
  | { readonly type: 'wake' }
  /** Leave this socket for a new one: the token now belongs to somebody else. */
  | { readonly type: 'restart' }
  | { readonly type: 'stop'; readonly reason: DatumError }

interface ConnectionContext {
  readonly nowMs: number
  readonly random: () => number
  readonly token: 'none' | 'static' | 'function'
}

export const NEW_HISTORY: History = { failures: 0, refusals: 0, established: false }

/** A connection that lasted this long was no failed attempt: the next loss starts the backoff anew. */
const STABLE_MS = 10_000

/** The next state; the same object where the event means nothing in this state. */
export function nextState(
  state: ConnectionState,
  event: ConnectionEvent,
  context: ConnectionContext,
): ConnectionState {
  if (state.phase === 'stopped') return state
  const { history } = state
  switch (event.type) {
    case 'start':
      return state.phase === 'idle' ? attempt(history, context) : state
    case 'token':
      return state.phase === 'token' ? { phase: 'opening', history } : state
    case 'token_failed':
      return state.phase === 'token' ? retryLater(history, event.error, context) : state
    case 'accepted':
      if (state.phase !== 'opening') return state
      return { phase: 'ready', history: { ...history, refusals: 0 }, sinceMs: context.nowMs }
    case 'established':
      return { ...state, history: { ...history, established: true } }
    case 'closed': {
      const lasted = state.phase === 'ready' && context.nowMs - state.sinceMs >= STABLE_MS
      if (state.phase === 'idle' || state.phase === 'waiting') return state
      return afterClose(lasted ? { ...history, failures: 0 } : history, event, context)
    }
    case 'retry':
      return state.phase === 'waiting' ? attempt(history, context) : state
    case 'wake':
      return state.phase === 'waiting' && state.hasty ? attempt(history, context) : state
    case 'restart':
      return state.phase === 'ready' ? attempt(history, context) : state
    case 'stop':
      return { phase: 'stopped', reason: event.reason }
  }
}

function attempt(history: History, { token }: ConnectionContext): ConnectionState {
  return { phase: token === 'none' ? 'opening' : 'token', history }
}

function afterClose(
  history: History,
  { code, detail }: { readonly code: number; readonly detail: string | null },
  context: ConnectionContext,
): ConnectionState {
  const because = detail === null ? '' : `: ${detail}`
  switch (code) {
    case CloseCode.unauthorized:
      return afterRefusal(history, because, context)
    case CloseCode.badMessage:
      return stopped('bad_message', `The server did not understand this client${because}`)
    case CloseCode.tooLarge:
      return stopped('too_large', `The server refused a message for its size${because}`)
    case CloseCode.rateLimited:
      return retryLater(
        history,
        new DatumError('rate_limited', `The server limits this client${because}`),
        context,
        'patient',
      )
    default:
      return retryLater(
        history,
        new DatumError('disconnected', `The connection was lost (code ${code})${because}`),
        context,
      )
  }
}

/** Only a token function can do better than the token that was refused. */
function afterRefusal(history: History, because: string, context: ConnectionContext): ConnectionState {
  const refusals = history.refusals + 1
  const message =
    context.token === 'none'
      ? `The server asks for a token${because}`
      : `The server refused the token${because}`
  if (context.token !== 'function' || (!history.established && refusals > 1))
    return stopped('unauthorized', message)
  return retryLater({ ...history, refusals }, new DatumError('unauthorized', message), context)
}

function retryLater(
  history: History,
  reason: DatumError,
  { random }: ConnectionContext,
  manner: 'hasty' | 'patient' = 'hasty',
): ConnectionState {
  const failures = history.failures + 1
  return {
    phase: 'waiting',
    history: { ...history, failures },
    delayMs: backoffMs(manner === 'patient' ? RATE_LIMITED : RECONNECT, failures, random),
    hasty: manner === 'hasty' && reason.code !== 'unauthorized',
    reason,
  }
}

function stopped(code: 'unauthorized' | 'bad_message' | 'too_large', message: string): ConnectionState {
  return { phase: 'stopped', reason: new DatumError(code, message) }
}
