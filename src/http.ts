/** The HTTP side: the upgrade at `/ws` with its checks, and the endpoints that operators point their tools at. */
import type { Config } from './config/config.ts'
import type { Metrics } from './observe/metrics.ts'
import type { TooMany } from './session/connection-count.ts'
import { SUBPROTOCOL } from './wire/limits.ts'

/** Bytes of a request's body: nothing here takes one. Beyond, the answer is 413, and nothing of it is read. */
export const HTTP_BODY_BYTES_MAX = 16 * 1024

interface HttpParts {
  readonly config: Config
  readonly metrics: Metrics
  /** Whether Postgres answers, which is what a load balancer should know. */
  readonly isReady: () => boolean
  /** Whether the server is being taken down: a socket opened now would not live. */
  readonly isStopping: () => boolean
  /** Who has too many sockets for this client to open one more; null: nobody. */
  readonly tooMany: (request: Request) => TooMany | null
  /** Makes the request a socket; false if it is not a WebSocket handshake. */
  readonly upgrade: (request: Request, headers: Record<string, string>) => boolean
  readonly serveOther: ((request: Request) => Response | Promise<Response> | null) | undefined
}

/** Answers one request; undefined where it became a socket. */
export async function answer(request: Request, parts: HttpParts): Promise<Response | undefined> {
  // A Host header may be anything, and then the URL is none.
  const url = URL.parse(request.url)
  if (url === null) return text('The Host header is not a host.\n', 400)
  switch (url.pathname) {
    case '/ws':
      return openSocket(request, parts)
    case '/healthz':
      return text('ok\n')
    case '/readyz':
      if (parts.isStopping()) return text('The server is going away\n', 503)
      return parts.isReady() ? text('ready\n') : text('Postgres does not answer\n', 503)
    case '/metrics':
      return new Response(await parts.metrics.text(), {
        headers: { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' },
      })
    default:
      return (await parts.serveOther?.(request)) ?? text('Not found. The WebSocket is at /ws.\n', 404)
  }
}

function openSocket(
  request: Request,
  { config, isStopping, tooMany, upgrade }: HttpParts,
): Response | undefined {
  if (isStopping()) return text('The server is going away.\n', 503)
  const origin = request.headers.get('origin')
  // Programs send no Origin; browsers always do, and pages cannot choose it (RFC 6455 §10.2).
  if (config.allowedOrigins !== null && origin !== null && !config.allowedOrigins.includes(origin)) {
    return text('This origin may not connect. See `allowed_origin` in datum.yaml.\n', 403)
  }
  const offered = request.headers.get('sec-websocket-protocol')
  if (offered !== null && !offered.split(',').some((name) => name.trim() === SUBPROTOCOL)) {
    return text(`This server speaks ${SUBPROTOCOL}.\n`, 400)
  }
  const full = tooMany(request)
  if (full === 'address') return text('Too many open sockets from this address.\n', 429)
  if (full === 'server') return text('Too many sockets are opening. Try again in some seconds.\n', 503)
  if (upgrade(request, offered === null ? {} : { 'sec-websocket-protocol': SUBPROTOCOL })) return undefined
  return text('This is a WebSocket endpoint.\n', 426)
}

function text(body: string, status = 200): Response {
  return new Response(body, { status, headers: { 'content-type': 'text/plain; charset=utf-8' } })
}
