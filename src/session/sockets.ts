/**
 * Every open WebSocket of the server: whose it is, whether it may be opened, and a session (session.ts) for each. Bun calls
 * the handlers; `server.ts` puts them into the listener.
 */
import type { ServerWebSocket, WebSocketHandler } from 'bun'
import type { Config } from '../config/config.ts'
import { CloseCode } from '../wire/close-codes.ts'
import { FRAME_BYTES_MAX, QUEUED_BYTES_MAX } from '../wire/limits.ts'
import { clientAddressBehind } from './client-address.ts'
import { ConnectionCount, type TooMany } from './connection-count.ts'
import { Session, type SessionContext } from './session.ts'

/** Sockets that say nothing for this long are pinged, and closed if they do not answer. */
const IDLE_SECONDS = 120

/** What a socket carries with it. */
export interface SocketData {
  readonly address: string
  /** It counts among those that have not authenticated. */
  isStranger: boolean
  session: Session | null
}

export class Sockets {
  readonly #context: SessionContext
  readonly #sessions = new Set<Session>()
  readonly #connections: ConnectionCount
  /** Those among them that have not shown a token yet: anybody on the network can open such. */
  readonly #strangers: ConnectionCount
  readonly #clientAddress: ReturnType<typeof clientAddressBehind>

  constructor(config: Config, context: SessionContext) {
    this.#context = context
    this.#connections = new ConnectionCount({ perAddress: config.connectionsPerIp, inAll: 0 })
    this.#strangers = new ConnectionCount({
      perAddress: config.unauthenticatedPerIp,
      inAll: config.unauthenticated,
    })
    this.#clientAddress = clientAddressBehind(config.trustedProxies)
  }

  get count(): number {
    return this.#sessions.size
  }

  /** Bytes that wait for sockets that do not read. */
  get queuedBytes(): number {
    let bytes = 0
    for (const session of this.#sessions) bytes += session.queuedBytes
    return bytes
  }

  /** Who has too many sockets for the one that this request asks for; null: nobody. */
  tooMany(handshake: Request, server: Bun.Server<SocketData>): TooMany | null {
    const address = this.#addressOf(handshake, server)
    return this.#connections.refusal(address) ?? this.#strangers.refusal(address)
  }

  /** Makes the request a socket; false if it is not a WebSocket handshake. */
  upgrade(handshake: Request, server: Bun.Server<SocketData>, headers: Record<string, string>): boolean {
    const isStranger = this.#context.verifier !== null
    const data = { address: this.#addressOf(handshake, server), session: null, isStranger }
    return server.upgrade(handshake, { headers, data })
  }

  /** Closes all with 1012. Resolves when the writes that they had under way have ended. */
  async close(): Promise<void> {
    // Listed first: a session that is closed is forgotten, and its writes may still be under way.
    const open = [...this.#sessions]
    for (const session of open) session.close(CloseCode.restart, 'The server restarts. Connect again.')
    await Promise.all(open.map((session) => session.drained()))
  }

  readonly handlers: WebSocketHandler<SocketData> = {
    // Beyond this Bun drops the connection without a word; up to it the session can say 4413.
    maxPayloadLength: 2 * FRAME_BYTES_MAX,
    backpressureLimit: QUEUED_BYTES_MAX,
    closeOnBackpressureLimit: true,
    idleTimeout: IDLE_SECONDS,
    sendPings: true,
    open: (socket) => this.#open(socket),
    message: (socket, frame) => socket.data.session?.onFrame(frame),
    drain: (socket) => socket.data.session?.onDrain(),
    close: (socket) => this.#forget(socket),
  }

  #addressOf(request: Request, server: Bun.Server<SocketData>): string {
    const peer = server.requestIP(request)?.address ?? ''
    return this.#clientAddress(peer, request.headers.get('x-forwarded-for'))
  }

  #open(socket: ServerWebSocket<SocketData>): void {
    const { address, isStranger } = socket.data
    this.#connections.opened(address)
    if (isStranger) this.#strangers.opened(address)
    const session = new Session(
      {
        address,
        send: (frame) => socket.send(frame),
        queuedBytes: () => socket.getBufferedAmount(),
        close: (code, reason) => socket.close(code, reason),
        cutOff: () => socket.terminate(),
        authenticated: () => this.#knows(socket),
      },
      this.#context,
    )
    socket.data.session = session
    this.#sessions.add(session)
  }

  #knows({ data }: ServerWebSocket<SocketData>): void {
    if (data.isStranger) this.#strangers.closed(data.address)
    data.isStranger = false
  }

  #forget(socket: ServerWebSocket<SocketData>): void {
    const { session, address } = socket.data
    this.#connections.closed(address)
    this.#knows(socket)
    if (session === null) return
    session.onClose()
    this.#sessions.delete(session)
  }
}
