/**
 * One socket: who it speaks for, its subscriptions, its writes. Messages are taken one after the other; the principal is
 * swapped between two of them. The server hands it frames and events; it talks to sync and never to the database.
 */

import { AuthError } from '../auth/auth-error.ts'
import { ANONYMOUS, isSameUser, type Principal, subjectOf } from '../auth/principal.ts'
import type { Verifier } from '../auth/verifier.ts'
import type { Table } from '../db/catalog.ts'
import type { Log } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { Opened, OpenOptions } from '../sync/hub.ts'
import type { Subscriber } from '../sync/subscriber.ts'
import type { Subscription } from '../sync/subscription.ts'
import { bboxProblem } from '../wire/bbox.ts'
import { isLonger } from '../wire/byte-length.ts'
import { CloseCode } from '../wire/close-codes.ts'
import { BadMessage, decodeClientMessage } from '../wire/decode.ts'
import {
  AUTH_DEADLINE_SECONDS,
  FRAME_BYTES_MAX,
  INBOX_MESSAGES_MAX,
  LARGE_FRAME_CHARACTERS,
  PRE_AUTH_FRAME_BYTES_MAX,
  QUEUED_REPLIES_MAX,
  SUBSCRIPTIONS_PER_SOCKET_MAX,
  WAITING_CHARACTERS_MAX,
} from '../wire/limits.ts'
import type {
  AuthMessage,
  BboxMessage,
  ClientMessage,
  EndCode,
  ServerMessage,
  SubscribeMessage,
} from '../wire/messages.ts'
import type { LargeFrames } from './large-frames.ts'
import { LongTimer } from './long-timer.ts'
import { MessageRate } from './message-rate.ts'
import type { RateLimit } from './rate-limit.ts'
import { WriteQueue, type WriteTarget } from './write-queue.ts'

/** The socket as the session sees it. */
export interface Socket {
  /** Bytes sent, 0 if dropped, -1 if queued because the network takes no more (Bun's ServerWebSocket). */
  send(frame: string): number
  /** Bytes sent that the network has not taken yet. */
  queuedBytes(): number
  close(code: number, reason: string): void
  /** Ends it at once, and drops what is queued. */
  cutOff(): void
  /** It has shown a token that verifies. */
  authenticated(): void
  /** Whose socket it is, as `client-address.ts` makes it out. */
  readonly address: string
}

/** What a session needs of the rest of the server. */
export interface SessionContext extends WriteTarget {
  /** Null: no `auth:`, everybody is anonymous and tokens are not looked at. */
  readonly verifier: Verifier | null
  readonly hub: WriteTarget['hub'] & {
    tableNamed(name: string | undefined): Table | null
    open(options: OpenOptions): Promise<Opened>
  }
  readonly rateLimit: RateLimit
  readonly largeFrames: LargeFrames
  readonly log: Log
  readonly metrics: Metrics
  readonly authDeadlineSeconds?: number
}

export class Session implements Subscriber {
  readonly #socket: Socket
  readonly #context: SessionContext
  readonly #subscriptions = new Map<string, Subscription>()
  readonly #writes: WriteQueue
  /** Messages that wait for their turn; of large ones only the text, not looked at yet. */
  readonly #inbox: { readonly frame: string; readonly message: ClientMessage | null }[] = []
  #inboxLength = 0
  readonly #rate = new MessageRate()
  readonly #expiry = new LongTimer()
  #deadline: ReturnType<typeof setTimeout> | null = null
  /** Null: not authenticated yet. */
  #principal: Principal | null
  #writable = true
  /** Characters of the answers that were sent since the network took no more. */
  #queuedReplies = 0
  #closed = false
  #isWorking = false
  /** Waits for its user's turn, which may come long after the socket is gone. */
  #largeFrame: string | null = null

  constructor(socket: Socket, context: SessionContext) {
    this.#socket = socket
    this.#context = context
    this.#principal = context.verifier === null ? ANONYMOUS : null
    this.#writes = new WriteQueue(context, socket.address, {
      reply: (message) => this.#reply(message),
      unsettled: () => {
        let most = 0
        for (const { unsettledCount } of this.#subscriptions.values()) most = Math.max(most, unsettledCount)
        return most
      },
      committed: (table, batch, xid) => {
        for (const subscription of this.#subscriptions.values()) {
          if (subscription.tableOid === table.oid) subscription.awaitBatch(batch, xid)
        }
      },
    })
    if (this.#principal === null) {
      const seconds = context.authDeadlineSeconds ?? AUTH_DEADLINE_SECONDS
      this.#deadline = setTimeout(
        () => this.close(CloseCode.authTimeout, 'No token came in time.'),
        seconds * 1_000,
      )
    }
  }

  get principal(): Principal {
    return this.#principal ?? ANONYMOUS
  }

  get queuedBytes(): number {
    return this.#closed ? 0 : this.#socket.queuedBytes()
  }

  get isClosed(): boolean {
    return this.#closed
  }

  get writable(): boolean {
    return this.#writable && !this.#closed
  }

  /** A frame came in. Never throws: what is wrong with it closes the socket. */
  onFrame(frame: string | Uint8Array): void {
    if (this.#closed) return
    if (!this.#rate.take()) return this.close(CloseCode.rateLimited, 'Too many messages.')
    if (typeof frame !== 'string') return this.close(CloseCode.badMessage, 'Frames are text, not binary.')
    const bytesMax = this.#principal === null ? PRE_AUTH_FRAME_BYTES_MAX : FRAME_BYTES_MAX
    if (isLonger(frame, bytesMax))
      return this.close(CloseCode.tooLarge, `A frame may have ${bytesMax} bytes here.`)
    try {
      const isLarge = this.#principal !== null && frame.length > LARGE_FRAME_CHARACTERS
      this.#inbox.push({ frame, message: isLarge ? null : decodeClientMessage(frame) })
      this.#inboxLength += frame.length
    } catch (error) {
      return this.#misunderstood(error)
    }
    if (this.#inbox.length > INBOX_MESSAGES_MAX || this.#inboxLength > WAITING_CHARACTERS_MAX)
      return this.close(CloseCode.rateLimited, 'Too many messages at once.')
    if (!this.#isWorking) void this.#work()
  }

  onDrain(): void {
    this.#writable = true
    this.#queuedReplies = 0
    for (const subscription of this.#subscriptions.values()) subscription.onDrain()
  }

  /** The socket is gone, for whatever reason. */
  onClose(): void {
    this.#closed = true
    this.#inbox.length = 0
    this.#largeFrame = null
    if (this.#deadline !== null) clearTimeout(this.#deadline)
    this.#expiry.clear()
    for (const subscription of this.#subscriptions.values()) subscription.leave()
    this.#subscriptions.clear()
  }

  /** Says why in an `error` message, then closes. */
  close(code: CloseCode, message: string): void {
    if (this.#closed) return
    this.#reply({ type: 'error', code, message })
    this.#context.metrics.closed(code)
    this.onClose()
    // RFC 6455 §5.5: a control frame has at most 125 bytes, two of them the code.
    this.#socket.close(code, message.slice(0, 120))
  }

  /** Resolves when the writes under way have ended. */
  drained(): Promise<void> {
    return this.#writes.drained()
  }

  send(frame: string): void {
    if (this.#closed) return
    this.#context.metrics.frameSent(frame.length)
    if (this.#socket.send(frame) === -1) this.#writable = false
  }

  ended(sub: string, code: EndCode, message: string): void {
    this.#subscriptions.delete(sub)
    this.#reply({ type: 'ended', sub, code, message })
  }

  async #work(): Promise<void> {
    this.#isWorking = true
    try {
      for (let next = this.#inbox.shift(); next !== undefined; next = this.#inbox.shift()) {
        this.#inboxLength -= next.frame.length
        if (next.message === null) await this.#takeLarge(next.frame)
        else await this.#take(next.message, next.frame)
        if (this.#closed) return
      }
    } catch (error) {
      if (error instanceof BadMessage) return this.#misunderstood(error)
      this.#context.log.error('A session failed:', error instanceof Error ? error.name : typeof error)
      this.close(CloseCode.restart, 'The server made a mistake. Connect again.')
    } finally {
      this.#isWorking = false
    }
  }

  #misunderstood(error: unknown): void {
    if (this.#principal === null)
      return this.close(CloseCode.unauthorized, 'The first message must be a token.')
    const reason = error instanceof BadMessage ? error.message : 'not understood'
    this.close(CloseCode.badMessage, `Not a message of this protocol (${reason}).`)
  }

  async #takeLarge(frame: string): Promise<void> {
    const user = subjectOf(this.principal) ?? this.#socket.address
    let taking: void | Promise<void> | null = null
    this.#largeFrame = frame
    await this.#context.largeFrames.take(user, () => {
      const frame = this.#largeFrame
      if (frame === null) return
      this.#largeFrame = null
      const message = decodeClientMessage(frame)
      taking = this.#take(message, frame)
      // A token is work to its end. What others wait for, the database, is no work of this thread.
      return message.type === 'auth' ? taking : undefined
    })
    await taking
  }

  #take(message: ClientMessage, frame: string): void | Promise<void> {
    if (message.type === 'auth') return this.#authenticate(message)
    if (this.#principal === null)
      return this.close(CloseCode.unauthorized, 'The first message must be a token.')
    switch (message.type) {
      case 'subscribe':
        return this.#subscribe(message)
      case 'bbox':
        return this.#moveBox(message)
      case 'unsubscribe':
        return this.#unsubscribe(message.sub)
      case 'write':
        // The principal of now: a refresh that comes before its turn does not change who wrote it.
        return this.#writes.add(message, frame, this.#principal)
      case 'ping':
        return this.#reply({ type: 'pong', cursors: this.#cursors() })
    }
  }

  async #authenticate({ token }: AuthMessage): Promise<void> {
    const { verifier, expiryToleranceSeconds } = this.#context
    if (verifier === null) return this.#reply({ type: 'authenticated', expiresAt: null })
    let principal: Principal
    try {
      principal = await verifier.verify(token)
    } catch (error) {
      if (!(error instanceof AuthError)) throw error
      return this.close(CloseCode.unauthorized, error.message)
    }
    if (this.#closed) return
    if (this.#principal !== null && !isSameUser(this.#principal, principal)) {
      // A write that waits for its turn must never run as somebody else.
      return this.close(
        CloseCode.unauthorized,
        'The new token has another `sub` or `iss`. Open another socket for another user.',
      )
    }
    if (this.#deadline !== null) clearTimeout(this.#deadline)
    this.#socket.authenticated()
    this.#reply({ type: 'authenticated', expiresAt: principal.expiresAt })
    this.#principal = principal
    for (const subscription of this.#subscriptions.values()) subscription.principalChanged()
    if (expiryToleranceSeconds !== null && principal.expiresAt !== null) {
      this.#expiry.set((principal.expiresAt + expiryToleranceSeconds) * 1_000, () =>
        this.close(CloseCode.unauthorized, 'The token has expired.'),
      )
    }
  }

  async #subscribe({ sub: name, table: tableName, bbox, resume }: SubscribeMessage): Promise<void> {
    if (this.#subscriptions.has(name))
      return this.close(CloseCode.badMessage, 'A subscription of this name is open.')
    const refuse = (code: EndCode, message: string) =>
      this.#reply({ type: 'ended', sub: name, code, message })
    if (this.#subscriptions.size >= SUBSCRIPTIONS_PER_SOCKET_MAX) {
      return refuse(
        'too_many_subscriptions',
        `A socket may have ${SUBSCRIPTIONS_PER_SOCKET_MAX} subscriptions.`,
      )
    }
    const table = this.#context.hub.tableNamed(tableName)
    if (table === null) return refuse('unknown_table', 'This server does not serve a table of that name.')
    const problem = boxProblem(table, bbox)
    if (problem !== null) return refuse('invalid', problem)
    const opened = await this.#context.hub.open({
      name,
      table,
      bbox: bbox ?? null,
      subscriber: this,
      resume: resume ?? null,
    })
    if ('refused' in opened) return refuse(opened.refused.code, opened.refused.message)
    const { subscription, resumed } = opened
    if (this.#closed) return subscription.stop()
    // The table may have been altered meanwhile, and the client been told.
    if (subscription.isEnded) return
    this.#subscriptions.set(name, subscription)
    this.#reply({ type: 'subscribed', sub: name, table: opened.table.info, resumed })
    subscription.start()
  }

  /** Waits for what the subscription has under way: subscribing and leaving in a loop must not pile up reads. */
  async #unsubscribe(name: string): Promise<void> {
    const subscription = this.#subscriptions.get(name)
    if (subscription === undefined) return
    subscription.stop()
    this.#subscriptions.delete(name)
    await subscription.finished()
  }

  #moveBox({ sub, seq, bbox }: BboxMessage): void {
    const subscription = this.#subscriptions.get(sub)
    // It may have ended while this message was on its way.
    if (subscription === undefined) return
    const problem =
      subscription.bbox === null ? 'This table has no geometry and takes no bbox.' : bboxProblem(bbox)
    if (problem !== null) return subscription.end('invalid', problem)
    subscription.setBbox(bbox, seq)
  }

  #cursors(): Record<string, string> {
    const cursors: [string, string][] = []
    for (const [name, { cursor }] of this.#subscriptions) if (cursor !== null) cursors.push([name, cursor])
    return Object.fromEntries(cursors)
  }

  #reply(message: ServerMessage): void {
    const frame = JSON.stringify(message)
    this.send(frame)
    if (this.writable || this.#closed) return
    this.#queuedReplies += frame.length
    if (this.#queuedReplies <= QUEUED_REPLIES_MAX) return
    // A close frame would wait behind what is queued.
    this.onClose()
    this.#socket.cutOff()
  }
}

function boxProblem(table: Table, bbox: SubscribeMessage['bbox']): string | null {
  if (table.geometry === null)
    return bbox === undefined ? null : 'This table has no geometry and takes no bbox.'
  return bbox === undefined ? 'This table needs a bbox: [west, south, east, north].' : bboxProblem(bbox)
}
