/**
 * One connection to the server that lasts for the life of a client: opens sockets, authenticates them, keeps them
 * alive and replaces them. What comes next is decided in `connection-state.ts`; this file carries it out.
 */
import { CloseCode } from '../src/wire/close-codes.ts'
import type { ClientMessage, ServerMessage } from '../src/wire/messages.ts'
import { type ConnectionEvent, type ConnectionState, NEW_HISTORY, nextState } from './connection-state.ts'
import { DatumError } from './datum-error.ts'
import type { Environment, WebSocketLike } from './environment.ts'
import { Heartbeat } from './heartbeat.ts'
import { readToken, type TokenFacts } from './jwt.ts'
import { TokenRefresh } from './token-refresh.ts'
import type { TokenSource } from './token-source.ts'

/** From opening a socket until it is authenticated: the server's own limit for it is 10 s. */
const ATTEMPT_LIMIT_MS = 15_000

/** What a browser reports when a socket ends without a close frame (RFC 6455 §7.1.5). */
const ABNORMAL_CLOSURE = 1006

interface ConnectionParts {
  readonly environment: Environment
  readonly url: string
  /** null: no token was given. */
  readonly tokens: TokenSource | null
  /** A new socket takes messages. `token`: whose it is, null without one. */
  readonly onReady: (token: TokenFacts | null) => void
  /** The server has taken another token on the open socket. */
  readonly onRefreshed: (token: TokenFacts) => void
  readonly onMessage: (message: ServerMessage) => void
  /** The socket that was ready is gone, and another one will follow. */
  readonly onLost: () => void
  /** Over for good; called once. */
  readonly onStopped: (reason: DatumError) => void
  /** Something failed and will be tried again. */
  readonly onTrouble: (error: DatumError) => void
}

export class Connection {
  readonly #parts: ConnectionParts
  readonly #heartbeat: Heartbeat
  readonly #refresh: TokenRefresh | null
  #state: ConnectionState = { phase: 'idle', history: NEW_HISTORY }
  #socket: WebSocketLike | null = null
  #cancelTimer: () => void = () => {}
  #stopWatching: () => void = () => {}
  /** The token that was last sent, that the server last accepted, and that it last refused. */
  #offeredToken = ''
  #acceptedToken: string | null = null
  #refusedToken: string | null = null
  #subject: string | null = null
  #trouble: DatumError | null = null
  /** What the server said before it closed the socket. */
  #detail: string | null = null

  constructor(parts: ConnectionParts) {
    this.#parts = parts
    const { environment, tokens } = parts
    this.#heartbeat = new Heartbeat({
      clock: environment.clock,
      sendPing: () => this.send({ type: 'ping' }),
      onDead: () => this.#closed(ABNORMAL_CLOSURE),
    })
    this.#refresh =
      tokens &&
      new TokenRefresh({
        source: tokens,
        environment,
        onToken: (token) => this.#sendRefresh(token),
        onFailure: parts.onTrouble,
      })
  }

  get ready(): boolean {
    return this.#state.phase === 'ready'
  }

  /** Why the last attempt failed; null once one succeeds. */
  get trouble(): DatumError | null {
    return this.#trouble
  }

  start(): void {
    this.#stopWatching = this.#parts.environment.onWake(() => this.#wake())
    this.#dispatch({ type: 'start' })
  }

  /** The first view is complete: from now on a refused token or a failing network is something to recover from. */
  establish(): void {
    this.#dispatch({ type: 'established' })
  }

  stop(reason: DatumError): void {
    this.#dispatch({ type: 'stop', reason })
  }

  /** Sends if there is a socket that takes messages. What matters after a loss is sent again by those it matters to. */
  send(message: ClientMessage): void {
    if (this.ready) this.#transmit(message)
  }

  #dispatch(event: ConnectionEvent): void {
    const before = this.#state
    const { environment, tokens } = this.#parts
    const context = { nowMs: environment.clock.now(), random: environment.random }
    this.#state = nextState(before, event, { ...context, token: tokens?.kind ?? 'none' })
    if (this.#state.phase !== before.phase) this.#enter(this.#state, before)
  }

  #enter(state: ConnectionState, before: ConnectionState): void {
    this.#cancelTimer()
    if (state.phase !== 'opening' && state.phase !== 'ready') this.#dropSocket()
    if (before.phase === 'ready') {
      this.#refresh?.suspend()
      this.#heartbeat.stop()
      if (state.phase !== 'stopped') this.#parts.onLost()
      // An application that was told of the loss may have disconnected.
      if (this.#state !== state) return
    }
    switch (state.phase) {
      case 'token':
        void this.#getToken()
        break
      case 'opening':
        this.#open()
        break
      case 'ready':
        this.#begin()
        break
      case 'waiting': {
        const { clock } = this.#parts.environment
        this.#trouble = state.reason
        this.#cancelTimer = clock.setTimer(() => this.#dispatch({ type: 'retry' }), state.delayMs)
        // The first refusal is what a device sees whose token ended while it slept: nothing to trouble anybody with.
        const { refusals } = state.history
        if (state.reason.code === 'token_failed' || refusals > 1) this.#parts.onTrouble(state.reason)
        break
      }
      case 'stopped':
        this.#stopWatching()
        this.#parts.tokens?.stop()
        this.#parts.onStopped(state.reason)
    }
  }

  async #getToken(): Promise<void> {
    try {
      const token = await this.#parts.tokens!.get()
      if (this.#state.phase !== 'token') return
      this.#offeredToken = token
      if (token === this.#refusedToken) this.#closed(CloseCode.unauthorized)
      else this.#dispatch({ type: 'token' })
    } catch (error) {
      this.#dispatch({ type: 'token_failed', error: error as DatumError })
    }
  }

  #open(): void {
    const { environment, url, tokens } = this.#parts
    this.#detail = null
    this.#cancelTimer = environment.clock.setTimer(() => this.#closed(ABNORMAL_CLOSURE), ATTEMPT_LIMIT_MS)
    let socket: WebSocketLike
    try {
      socket = environment.openSocket(url)
    } catch {
      // A browser that refuses this URL (ws: on a page from https:, a blocked port) will refuse it again.
      this.stop(new DatumError('invalid', 'This environment refuses to open a socket to serverUrl.'))
      return
    }
    this.#socket = socket
    socket.onopen = () => {
      if (tokens === null) this.#dispatch({ type: 'accepted' })
      else this.#transmit({ type: 'auth', token: this.#offeredToken })
    }
    socket.onmessage = (event: { readonly data: unknown }) => this.#receive(event.data)
    socket.onclose = (event: { readonly code: number }) => this.#closed(event.code)
    socket.onerror = ignore
  }

  #begin(): void {
    this.#trouble = null
    this.#heartbeat.start()
    const facts = this.#parts.tokens && readToken(this.#offeredToken)
    this.#accepted(facts)
    this.#parts.onReady(facts)
  }

  #accepted(facts: TokenFacts | null): void {
    this.#acceptedToken = this.#offeredToken
    this.#refusedToken = null
    this.#subject = facts?.subject ?? null
    this.#refresh?.accepted(this.#offeredToken)
  }

  #sendRefresh(token: string): void {
    const { subject } = readToken(token)
    // The server would close the socket (a write must never run as somebody else): start over as the other one.
    if (subject !== this.#subject) {
      this.#dispatch({ type: 'restart' })
    } else {
      this.#offeredToken = token
      this.send({ type: 'auth', token })
    }
  }

  #receive(data: unknown): void {
    this.#heartbeat.heard()
    try {
      const message = JSON.parse(data as string) as ServerMessage
      if (message.type === 'error') this.#detail = message.message
      else if (message.type !== 'authenticated') this.#parts.onMessage(message)
      else if (this.ready) this.#refreshed()
      else this.#dispatch({ type: 'accepted' })
    } catch (cause) {
      // Not a message of this protocol, or not one that fits what came before: a new socket starts from what is known.
      this.#detail = 'The server sent something that this client does not understand.'
      this.#parts.onTrouble(new DatumError('bad_message', this.#detail, { cause }))
      this.#closed(ABNORMAL_CLOSURE)
    }
  }

  #refreshed(): void {
    const facts = readToken(this.#offeredToken)
    this.#accepted(facts)
    this.#parts.onRefreshed(facts)
  }

  #closed(code: number): void {
    // With a refresh under way it may be the old token that has ended and not the new one that is bad.
    const certain = !this.ready || this.#offeredToken === this.#acceptedToken
    if (code === CloseCode.unauthorized && certain) this.#refusedToken = this.#offeredToken
    this.#dispatch({ type: 'closed', code, detail: this.#detail })
  }

  #wake(): void {
    this.#dispatch({ type: 'wake' })
    if (!this.ready) return
    this.#refresh?.wake()
    this.#heartbeat.probe()
  }

  #transmit(message: ClientMessage): void {
    try {
      this.#socket?.send(JSON.stringify(message))
    } catch {
      // A socket that is about to close: its close event follows.
    }
  }

  #dropSocket(): void {
    const socket = this.#socket
    if (socket === null) return
    this.#socket = null
    // Not null: the `ws` package throws an error event that nobody listens to.
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = ignore
    try {
      socket.close(1000)
    } catch {
      // It was closed already, or is past caring.
    }
  }
}

function ignore(): void {}
