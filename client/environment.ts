/**
 * What the client needs of the world: time, chance, sockets, and a hint that a device woke up. Everything else takes
 * these as arguments, so that tests can put a world of their own in their place.
 */
import { SUBPROTOCOL } from '../src/wire/limits.ts'
import { DatumError } from './datum-error.ts'

export interface Clock {
  /** The wall clock, in milliseconds since 1970. */
  now(): number
  /** Calls back once after the delay (at most 2^31-1 ms: see `alarm.ts`). Returns the function that cancels it. */
  setTimer(callback: () => void, delayMs: number): () => void
}

/** The part of a WebSocket that the client uses: the browser's, Bun's, Node's and that of the `ws` package have it. */
export interface WebSocketLike {
  onopen: ((event: never) => void) | null
  onmessage: ((event: never) => void) | null
  onerror: ((event: never) => void) | null
  onclose: ((event: never) => void) | null
  send(data: string): void
  close(code?: number, reason?: string): void
}

export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike

export interface Environment {
  readonly clock: Clock
  /** At least 0 and less than 1. */
  random(): number
  /** A new version 4 UUID, in lower case. */
  uuid(): string
  openSocket(url: string): WebSocketLike
  /** Calls back when the network may be back or the device may have slept. Returns the function that stops it. */
  onWake(callback: () => void): () => void
}

/** The world as it is. `invalid` if there is no WebSocket in it. */
export function systemEnvironment(given: WebSocketConstructor | undefined): Environment {
  const Constructor = given ?? (globalThis.WebSocket as WebSocketConstructor | undefined)
  if (Constructor === undefined)
    throw new DatumError('invalid', 'There is no global WebSocket here: pass one as the option WebSocket.')
  return {
    clock: {
      now: () => Date.now(),
      setTimer(callback, delayMs) {
        const timer = setTimeout(callback, delayMs)
        return () => clearTimeout(timer)
      },
    },
    random: () => Math.random(),
    uuid,
    openSocket: (url) => new Constructor(url, [SUBPROTOCOL]),
    onWake,
  }
}

/** `crypto.randomUUID` is missing on pages that were not loaded over HTTPS, `getRandomValues` is not. */
function uuid(): string {
  if (typeof crypto.randomUUID === 'function') return crypto.randomUUID()
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[6] = (bytes[6]! & 0x0f) | 0x40
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

function onWake(callback: () => void): () => void {
  const page = globalThis.document as Document | undefined
  const onVisible = () => {
    if (page?.visibilityState === 'visible') callback()
  }
  // Node and Bun have none of these events; there the timers that look at the wall clock must do.
  globalThis.addEventListener?.('online', callback)
  globalThis.addEventListener?.('pageshow', callback)
  page?.addEventListener?.('visibilitychange', onVisible)
  return () => {
    globalThis.removeEventListener?.('online', callback)
    globalThis.removeEventListener?.('pageshow', callback)
    page?.removeEventListener?.('visibilitychange', onVisible)
  }
}
