/**
 * A WebSocket client that sends frames byte by byte as RFC 6455 §5.2 lays them out, valid or not, over a bare TCP
 * connection, and keeps the frames that come back. `slow-socket.ts` is for readers that stop.
 */
import { connect, type Socket } from 'node:net'
import { SUBPROTOCOL } from '../../src/wire/limits.ts'

/** Opcodes (RFC 6455 §11.8). */
export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

interface FrameOptions {
  readonly opcode?: number
  /** Whether it is the last frame of its message. Default true. */
  readonly fin?: boolean
  /** The three reserved bits, as a number of 0–7. */
  readonly reserved?: number
  /** Default true, as clients must. */
  readonly masked?: boolean
  /** The length that is announced, where it is not the payload's. */
  readonly announced?: bigint
}

/** One frame's bytes. */
export function frameBytes(payload: string | Uint8Array, options: FrameOptions = {}): Buffer {
  const { opcode = OPCODE.text, fin = true, reserved = 0, masked = true } = options
  const body = Buffer.from(payload as string)
  const length = options.announced ?? BigInt(body.length)
  const bit = masked ? 0x80 : 0
  const first = (fin ? 0x80 : 0) | (reserved << 4) | opcode
  const head = Buffer.alloc(length < 126n ? 2 : length < 65_536n ? 4 : 10)
  head[0] = first
  if (length < 126n) head[1] = bit | Number(length)
  else if (length < 65_536n) {
    head[1] = bit | 126
    head.writeUInt16BE(Number(length), 2)
  } else {
    head[1] = bit | 127
    head.writeBigUInt64BE(length, 2)
  }
  // A mask of zeros leaves the payload as it is.
  return Buffer.concat([head, masked ? Buffer.alloc(4) : Buffer.alloc(0), body])
}

/** The payload of a close frame (RFC 6455 §5.5.1). */
export function closePayload(code: number, reason: string | Uint8Array = ''): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(code)
  return Buffer.concat([bytes, Buffer.from(reason as string)])
}

interface ReceivedFrame {
  readonly opcode: number
  readonly payload: Buffer
}

export class RawSocket {
  readonly frames: ReceivedFrame[] = []
  /** The TCP connection has ended. */
  closed = false
  readonly #socket: Socket
  #bytes: Buffer = Buffer.alloc(0)
  #waiting = new Set<() => void>()

  private constructor(socket: Socket) {
    this.#socket = socket
    const end = () => {
      this.closed = true
      this.#wake()
    }
    socket.on('close', end)
    socket.on('error', end)
    socket.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk])
      this.#wake()
    })
  }

  /** A TCP connection on which nothing has been said. */
  static async connect(url: string): Promise<RawSocket> {
    const { hostname, port } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port) })
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', () => resolve())
      socket.once('error', reject)
    })
    return new RawSocket(socket)
  }

  /** A WebSocket. `headers`: further lines of the handshake. */
  static async open(url: string, headers: Readonly<Record<string, string>> = {}): Promise<RawSocket> {
    const raw = await RawSocket.connect(url)
    raw.write(handshake(url, headers))
    const head = await raw.until(() => raw.#takeHead(), 'the handshake is answered')
    if (!head.startsWith('HTTP/1.1 101')) throw new Error(`refused: ${head.slice(0, 80)}`)
    return raw
  }

  write(bytes: string | Uint8Array): void {
    if (!this.#socket.destroyed) this.#socket.write(bytes)
  }

  /** Ends this side of the connection and goes on reading (a half-open connection, RFC 9293 §3.6). */
  end(): void {
    this.#socket.end()
  }

  destroy(): void {
    this.#socket.destroy()
  }

  /** What came before any WebSocket frame, as text; for requests that are no handshake. */
  get text(): string {
    return this.#bytes.toString('latin1')
  }

  /** Waits until the predicate is truthy, or the connection has ended and it still is not. */
  async until<T>(predicate: () => T, what: string): Promise<NonNullable<T>> {
    const giveUpAt = Date.now() + 30_000
    for (;;) {
      this.#takeFrames()
      const value = predicate()
      if (value) return value
      if (this.closed) throw new Error(`closed before ${what}`)
      if (Date.now() > giveUpAt) throw new Error(`gave up waiting until ${what}`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1_000)
        this.#waiting.add(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
  }

  /** The code and reason of the close frame, and that the server ended the connection behind it. */
  async untilClosed(): Promise<{ code: number | null; reason: string }> {
    await this.until(() => this.closed, 'it is closed')
    const close = this.frames.find(({ opcode }) => opcode === OPCODE.close)
    const code = close !== undefined && close.payload.length >= 2 ? close.payload.readUInt16BE(0) : null
    return { code, reason: close?.payload.subarray(2).toString('utf8') ?? '' }
  }

  /** The JSON messages among the frames so far. */
  get messages(): { type: string }[] {
    return this.frames
      .filter(({ opcode }) => opcode === OPCODE.text)
      .map(({ payload }) => JSON.parse(payload.toString('utf8')) as { type: string })
  }

  #isOpen = false

  #takeHead(): string | null {
    const end = this.#bytes.indexOf('\r\n\r\n')
    if (end === -1) return null
    const head = this.#bytes.toString('latin1', 0, end)
    this.#bytes = this.#bytes.subarray(end + 4)
    this.#isOpen = true
    return head
  }

  #takeFrames(): void {
    while (this.#isOpen) {
      const bytes = this.#bytes
      if (bytes.length < 2) return
      const short = bytes[1]! & 127
      const headLength = short === 127 ? 10 : short === 126 ? 4 : 2
      if (bytes.length < headLength) return
      const length =
        short === 127 ? Number(bytes.readBigUInt64BE(2)) : short === 126 ? bytes.readUInt16BE(2) : short
      if (bytes.length < headLength + length) return
      const payload = Buffer.from(bytes.subarray(headLength, headLength + length))
      this.frames.push({ opcode: bytes[0]! & 15, payload })
      this.#bytes = bytes.subarray(headLength + length)
    }
  }

  #wake(): void {
    this.#takeFrames()
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const resolve of waiting) resolve()
  }
}

/** The text of an opening handshake (RFC 6455 §4.1). */
export function handshake(url: string, headers: Readonly<Record<string, string>> = {}): string {
  const all: Record<string, string> = {
    Host: new URL(url).host,
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    'Sec-WebSocket-Protocol': SUBPROTOCOL,
    ...headers,
  }
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  return `GET /ws HTTP/1.1\r\n${lines.join('')}\r\n`
}
