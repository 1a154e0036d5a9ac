/**
 * A WebSocket (RFC 6455) as lean as a client can be, so that what is measured is the server: frames come out as the
 * bytes that came in, and nobody parses them who does not want to. Text frames only, no extensions.
 */
import type { Socket } from 'bun'
import { SUBPROTOCOL } from '../../src/wire/limits.ts'

interface RawSocketEvents {
  /** One message. The bytes are only good during the call. */
  onMessage(payload: Buffer): void
  onClose(): void
}

const OPCODE_CLOSE = 8
const OPCODE_PING = 9

export class RawSocket {
  bytesReceived = 0
  bytesSent = 0
  #socket: Socket | null = null
  #isOpen = false
  /** What came of a frame that is not complete yet. */
  #parts: Buffer[] = []
  #partsLength = 0
  /** How much there must be before it is worth looking again. */
  #wanted = 0
  readonly #events: RawSocketEvents
  readonly #opened = Promise.withResolvers<void>()

  private constructor(events: RawSocketEvents) {
    this.#events = events
  }

  /** Resolves after the handshake. `url` is `ws://host:port/path`. */
  static async open(url: string, events: RawSocketEvents): Promise<RawSocket> {
    const { hostname, port, pathname } = new URL(url)
    const raw = new RawSocket(events)
    raw.#socket = await Bun.connect({
      hostname,
      port: Number(port),
      socket: {
        data: (_, chunk) => raw.#receive(chunk),
        close: () => {
          raw.#opened.reject(new Error('the socket was closed during the handshake'))
          events.onClose()
        },
        error: (_, error) => raw.#opened.reject(error),
      },
    })
    raw.#write(
      `GET ${pathname} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ${SUBPROTOCOL}\r\n\r\n`,
    )
    await raw.#opened.promise
    return raw
  }

  send(text: string): void {
    this.#write(textFrame(text))
  }

  /** Drops the connection without a closing handshake, as a lost network does. */
  terminate(): void {
    this.#socket?.terminate()
  }

  #write(data: string | Buffer): void {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data
    this.bytesSent += bytes.length
    const written = this.#socket!.write(bytes)
    if (written < bytes.length) this.#writeRest(bytes.subarray(Math.max(written, 0)))
  }

  /** A resume that lists 50,000 ids does not fit into the kernel's buffer. */
  #writeRest(bytes: Buffer): void {
    setTimeout(() => {
      const written = Math.max(this.#socket!.write(bytes), 0)
      if (written < bytes.length) this.#writeRest(bytes.subarray(written))
    }, 0)
  }

  #receive(chunk: Buffer): void {
    this.bytesReceived += chunk.length
    let bytes = chunk
    if (this.#partsLength > 0) {
      this.#parts.push(chunk)
      this.#partsLength += chunk.length
      if (this.#partsLength < this.#wanted) return
      bytes = Buffer.concat(this.#parts, this.#partsLength)
    }
    let at = this.#isOpen ? 0 : this.#readHandshake(bytes)
    while (this.#isOpen) {
      this.#wanted = 2
      if (bytes.length - at < this.#wanted) break
      const short = bytes[at + 1]! & 0x7f
      const headLength = short < 126 ? 2 : short === 126 ? 4 : 10
      this.#wanted = headLength
      if (bytes.length - at < headLength) break
      const length =
        short < 126
          ? short
          : short === 126
            ? bytes.readUInt16BE(at + 2)
            : Number(bytes.readBigUInt64BE(at + 2))
      this.#wanted = headLength + length
      if (bytes.length - at < this.#wanted) break
      const opcode = bytes[at]! & 0x0f
      const payload = bytes.subarray(at + headLength, at + this.#wanted)
      at += this.#wanted
      if (opcode === OPCODE_PING) this.#write(Buffer.from([0x8a, 0x80, 0, 0, 0, 0]))
      else if (opcode === OPCODE_CLOSE) this.#socket?.end()
      else this.#events.onMessage(payload)
    }
    if (at === bytes.length) {
      this.#parts = []
      this.#partsLength = 0
    } else {
      this.#parts = [Buffer.from(bytes.subarray(at))]
      this.#partsLength = bytes.length - at
    }
  }

  /** Returns where the first frame begins. */
  #readHandshake(bytes: Buffer): number {
    const end = bytes.indexOf('\r\n\r\n')
    if (end < 0) return 0
    const status = bytes.toString('latin1', 9, 12)
    if (status !== '101') {
      this.#opened.reject(new Error(`the handshake was answered with ${status}`))
      return bytes.length
    }
    this.#isOpen = true
    this.#opened.resolve()
    return end + 4
  }
}

/** A client's frame: masked, as RFC 6455 §5.3 wants it, but with a mask of zeros, which changes nothing and costs nothing. */
function textFrame(text: string): Buffer {
  const payload = Buffer.from(text)
  const { length } = payload
  const headLength = length < 126 ? 6 : length < 65_536 ? 8 : 14
  const frame = Buffer.allocUnsafe(headLength + length)
  frame[0] = 0x81
  if (length < 126) frame[1] = 0x80 | length
  else if (length < 65_536) {
    frame[1] = 0x80 | 126
    frame.writeUInt16BE(length, 2)
  } else {
    frame[1] = 0x80 | 127
    frame.writeBigUInt64BE(BigInt(length), 2)
  }
  frame.fill(0, headLength - 4, headLength)
  payload.copy(frame, headLength)
  return frame
}
