/** What an application passes to `DatumClient.connect`, and what is wrong with it. */
import { bboxProblem } from '../src/wire/bbox.ts'
import { ID_LENGTH_MAX } from '../src/wire/limits.ts'
import type { Bbox } from '../src/wire/messages.ts'
import { DatumError } from './datum-error.ts'
import type { WebSocketConstructor } from './environment.ts'
import type { ConnectionStatus } from './status.ts'
import { type Token, tokenProblem } from './token-source.ts'

export interface ConnectOptions {
  /**
   * Where the server is: `wss://…`, or `https://…` for the same. Without a path, `/ws` is meant. On a page, a path
   * alone means the page's own server.
   */
  readonly serverUrl: string
  /** `[west, south, east, north]` in degrees. Needed for a table with geometry, refused for one without. */
  readonly bbox?: Bbox | undefined
  /**
   * A JWT, or a function that returns one. The function is called on every connect and again before the token's
   * `exp`: 60 s ahead, or, where the token lives shorter than two minutes, when two thirds of what remained of it have
   * passed. It has 20 s to answer.
   */
  readonly token?: Token | undefined
  /** Default: the server's first table. */
  readonly table?: string | undefined
  /**
   * How long `connect` waits for an answer of the server before it rejects with `timeout`, in milliseconds. While
   * rows of the first view are coming in, each part may take as long. Default 10,000; `Infinity` waits for ever.
   */
  readonly connectTimeout?: number | undefined
  /** As {@link DatumClient.onStatusChange}, from the very first status. */
  readonly onStatusChange?: ((status: ConnectionStatus) => void) | undefined
  /** Default: the global one. */
  readonly WebSocket?: WebSocketConstructor | undefined
}

/** Long enough for a phone, short enough for a person. */
export const CONNECT_TIMEOUT_MS = 10_000

/** Throws `invalid` for the first option that cannot work. */
export function checkOptions({ bbox, token, table, connectTimeout }: ConnectOptions): void {
  if (bbox !== undefined) refuse(bboxProblem(bbox))
  if (token !== undefined && typeof token !== 'function') {
    const problem = tokenProblem(token)
    refuse(problem && `token is ${problem}`)
  }
  if (table !== undefined && !(typeof table === 'string' && table !== '' && table.length <= ID_LENGTH_MAX))
    refuse('table must be the name of one')
  if (connectTimeout !== undefined && !(connectTimeout > 0))
    refuse('connectTimeout must be a positive number of milliseconds')
}

/** The address of the socket. Throws `invalid`. */
export function socketUrl(serverUrl: string): string {
  let url: URL
  try {
    url = new URL(serverUrl, globalThis.location?.href)
  } catch {
    throw new DatumError('invalid', 'serverUrl is no URL.')
  }
  if (!/^(ws|http)s?:$/.test(url.protocol))
    throw new DatumError('invalid', 'serverUrl must begin with wss://, ws://, https:// or http://.')
  if (url.pathname === '/') url.pathname = '/ws'
  url.hash = ''
  return url.href.replace(/^http/, 'ws')
}

function refuse(problem: string | null): void {
  if (problem !== null) throw new DatumError('invalid', `${problem[0]!.toUpperCase()}${problem.slice(1)}.`)
}
