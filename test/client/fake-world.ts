/** A world for the client without time or network: tests move the clock and speak for the server. */
import type { Environment, WebSocketLike } from '../../client/environment.ts'
import type { ClientMessage, Row, ServerMessage, TableInfo } from '../../src/wire/messages.ts'

export const START_MS = Date.UTC(2030, 0, 1)

class FakeClock {
  nowMs = START_MS
  #timers: { atMs: number; readonly call: () => void }[] = []

  now = (): number => this.nowMs

  setTimer = (call: () => void, delayMs: number): (() => void) => {
    // As real timers do: a longer delay overflows and fires at once.
    const timer = { atMs: this.nowMs + (delayMs > 2 ** 31 - 1 ? 1 : Math.max(delayMs, 0)), call }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    }
  }

  get timerCount(): number {
    return this.#timers.length
  }

  /** Lets time pass, and everything happen that is due meanwhile. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms
    await settle()
    for (;;) {
      const next = this.#timers.filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0]
      if (next === undefined) break
      this.nowMs = Math.max(this.nowMs, next.atMs)
      this.#timers = this.#timers.filter((other) => other !== next)
      next.call()
      await settle()
    }
    this.nowMs = untilMs
    await settle()
  }

  /** The device sleeps: the wall clock goes on, the timers stand still. */
  sleep(ms: number): void {
    this.nowMs += ms
    for (const timer of this.#timers) timer.atMs += ms
  }
}

export class FakeSocket implements WebSocketLike {
  onopen: ((event: never) => void) | null = null
  onmessage: ((event: never) => void) | null = null
  onerror: ((event: never) => void) | null = null
  onclose: ((event: never) => void) | null = null
  readonly url: string
  readonly sent: ClientMessage[] = []
  closedWith: number | null = null

  constructor(url: string) {
    this.url = url
  }

  send(data: string): void {
    this.sent.push(JSON.parse(data) as ClientMessage)
  }

  close(code = 1005): void {
    this.closedWith ??= code
  }

  /** Messages of one type, in the order they were sent. */
  of<T extends ClientMessage['type']>(type: T): Extract<ClientMessage, { type: T }>[] {
    return this.sent.filter(
      (message): message is Extract<ClientMessage, { type: T }> => message.type === type,
    )
  }

  /** The name of the newest subscription. */
  get sub(): string {
    return this.of('subscribe').at(-1)!.sub
  }

  async open(): Promise<void> {
    this.onopen?.({} as never)
    await settle()
  }

  /** What the server sends. */
  async say(...messages: ServerMessage[]): Promise<void> {
    for (const message of messages) this.onmessage?.({ data: JSON.stringify(message) } as never)
    await settle()
  }

  async sayText(data: unknown): Promise<void> {
    this.onmessage?.({ data } as never)
    await settle()
  }

  /** The server, or the network, ends the socket. */
  async drop(code: number): Promise<void> {
    this.onclose?.({ code } as never)
    await settle()
  }

  /** Opens, authenticates if asked to, and answers the subscription with these rows. */
  async serve(rows: readonly Row[] = [], table: TableInfo = PLACES): Promise<void> {
    await this.open()
    if (this.of('auth').length > 0) await this.say({ type: 'authenticated', expiresAt: null })
    await this.answer(rows, table)
  }

  async answer(rows: readonly Row[] = [], table: TableInfo = PLACES): Promise<void> {
    const { sub } = this
    await this.say(
      { type: 'subscribed', sub, table, resumed: false },
      { type: 'view', sub, rows, complete: 0, cursor: 'c1' },
    )
  }
}

export class FakeWorld {
  readonly clock = new FakeClock()
  readonly sockets: FakeSocket[] = []
  readonly #wakers = new Set<() => void>()
  #uuids = 0

  readonly environment: Environment = {
    clock: this.clock,
    random: () => 0.5,
    uuid: () => `00000000-0000-4000-8000-${String(++this.#uuids).padStart(12, '0')}`,
    openSocket: (url) => {
      const socket = new FakeSocket(url)
      this.sockets.push(socket)
      return socket
    },
    onWake: (callback) => {
      this.#wakers.add(callback)
      return () => {
        this.#wakers.delete(callback)
      }
    },
  }

  get socket(): FakeSocket {
    return this.sockets.at(-1)!
  }

  get wakerCount(): number {
    return this.#wakers.size
  }

  async wake(): Promise<void> {
    for (const waker of [...this.#wakers]) waker()
    await settle()
  }
}

export const PLACES: TableInfo = {
  name: 'places',
  idColumn: 'id',
  idType: 'uuid',
  geometryColumn: 'geom',
  columns: [
    { name: 'id', type: 'uuid', nullable: false, hasDefault: true },
    { name: 'name', type: 'text', nullable: true, hasDefault: false },
    { name: 'kind', type: 'text', nullable: true, hasDefault: false },
    { name: 'geom', type: 'geometry(Point,4326)', nullable: true, hasDefault: false },
  ],
}

export const COUNTED: TableInfo = {
  ...PLACES,
  name: 'counted',
  idType: 'integer',
  columns: [{ name: 'id', type: 'integer', nullable: false, hasDefault: true }, ...PLACES.columns.slice(1)],
}

export const BOX = [0, 0, 10, 10] as const

/** The id of the n-th place. */
export function placeId(n: number): string {
  return `aaaaaaaa-0000-4000-8000-${String(n).padStart(12, '0')}`
}

export function place(n: number, name = `place ${n}`, kind: string | null = null): Row {
  return { id: placeId(n), name, kind, geom: { type: 'Point', coordinates: [n, n] } }
}

/** A token that nobody signed; the client does not look. Times in seconds from {@link START_MS}. */
export function jwt(claims: Record<string, unknown>, lifeSeconds?: number, issuedSeconds = 0): string {
  const iat = START_MS / 1000 + issuedSeconds
  const payload = lifeSeconds === undefined ? claims : { ...claims, iat, exp: iat + lifeSeconds }
  return `${base64Url({ alg: 'HS256' })}.${base64Url(payload)}.c2lnbmF0dXJl`
}

function base64Url(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

/** Lets promises that are already decided run. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve()
}

/** A promise's fate so far. Also keeps a rejection from being reported as unhandled. */
export function watch<T>(promise: Promise<T>): { value?: T; error?: unknown; settled: boolean } {
  const fate: { value?: T; error?: unknown; settled: boolean } = { settled: false }
  promise.then(
    (value) => {
      fate.value = value
      fate.settled = true
    },
    (error: unknown) => {
      fate.error = error
      fate.settled = true
    },
  )
  return fate
}
