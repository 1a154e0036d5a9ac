/**
 * One client of docs/PROTOCOL.md over a {@link RawSocket}: authenticates, subscribes, notices when its view is complete
 * or ended. Frames are looked into as bytes, and parsed only where a row of the benchmark needs the ids.
 */
import type { Bbox, ViewMessage } from '../../src/wire/messages.ts'
import { RawSocket } from './raw-socket.ts'

const COMPLETE = Buffer.from('"complete":')
/** `complete` and `cursor` come after the rows, in at most so many bytes. */
const TAIL_BYTES = 512

/** The letter of `{"type":"…` that tells the types that come here apart. */
const AT_TYPE = 9
const [VIEW, AUTHENTICATED, SUBSCRIBED] = ['v', 'a', 's'].map((letter) => letter.charCodeAt(0))

interface ProtocolClientOptions {
  readonly url: string
  readonly token: string
  readonly bbox: Bbox
  /** Keep ids and cursor, to resume from. */
  readonly remembers: boolean
  /** Go no further than the token. */
  readonly onlyAuthenticate: boolean
  /** Every view frame, once the view was complete. */
  readonly onView: (payload: Buffer) => void
}

export class ProtocolClient {
  readonly #options: ProtocolClientOptions
  readonly #held = new Set<string>()
  #cursor: string | null = null
  #raw: RawSocket | null = null
  /** Whether what is held is what it was when the cursor came: then the server remembers it, and need not be told. */
  #isExact = false
  #isComplete = false
  #settle: { resolve: () => void; reject: (error: Error) => void } | null = null
  /** How often the server asked for the list of what is held. */
  listed = 0
  /** It had a cursor, and the server began from nothing all the same. */
  isAnew = false

  constructor(options: ProtocolClientOptions) {
    this.#options = options
  }

  get heldCount(): number {
    return this.#held.size
  }

  get bytesReceived(): number {
    return this.#raw?.bytesReceived ?? 0
  }

  get bytesSent(): number {
    return this.#raw?.bytesSent ?? 0
  }

  /** Resolves when the view is complete. With a cursor of before, it resumes. */
  async open(): Promise<void> {
    const { promise, ...settle } = Promise.withResolvers<void>()
    this.#settle = settle
    this.#isComplete = false
    this.#raw = await RawSocket.open(this.#options.url, {
      onMessage: (payload) => this.#receive(payload),
      onClose: () => settle.reject(new Error('the server closed a socket')),
    })
    this.#raw.send(JSON.stringify({ type: 'auth', token: this.#options.token }))
    await promise
  }

  drop(): void {
    this.#raw?.terminate()
  }

  #receive(payload: Buffer): void {
    const type = payload[AT_TYPE]
    if (type === VIEW) this.#view(payload)
    else if (type === AUTHENTICATED) this.#authenticated()
    else if (type === SUBSCRIBED) this.isAnew = this.#cursor !== null && !payload.includes('"resumed":true')
    else if (payload.includes('"held_needed"')) this.#subscribeWithList()
    else this.#settle?.reject(new Error(`the server said ${payload.toString()}`))
  }

  #authenticated(): void {
    if (this.#options.onlyAuthenticate) return this.#settle?.resolve()
    this.#subscribe()
  }

  #subscribe(): void {
    const list = this.#isExact ? {} : { held: [...this.#held] }
    const resume = this.#cursor === null ? {} : { resume: { cursor: this.#cursor, ...list } }
    this.#raw?.send(JSON.stringify({ type: 'subscribe', sub: 'map', bbox: this.#options.bbox, ...resume }))
  }

  /** The server does not know what is held. */
  #subscribeWithList(): void {
    this.#isExact = false
    this.listed++
    this.#subscribe()
  }

  #view(payload: Buffer): void {
    if (this.#options.remembers) this.#remember(payload)
    if (this.#isComplete) return this.#options.onView(payload)
    const tail = payload.subarray(-TAIL_BYTES)
    if (!tail.includes(COMPLETE)) return
    this.#isComplete = true
    this.#settle?.resolve()
  }

  #remember(payload: Buffer): void {
    const { rows = [], gone = [], cursor } = JSON.parse(payload.toString()) as ViewMessage
    for (const row of rows) this.#held.add(row.id as string)
    for (const id of gone) this.#held.delete(id)
    this.#isExact = cursor !== undefined
    if (cursor !== undefined) this.#cursor = cursor
  }
}
