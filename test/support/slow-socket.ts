/**
 * A WebSocket client over a bare TCP socket, of which a test can stop the reading: what a phone in a tunnel does to a
 * server. Only what that needs: no fragments, no compression, no TLS.
 */
import { connect, type Socket } from 'node:net'
import { SUBPROTOCOL } from '../../src/wire/limits.ts'
import type { ClientMessage, ServerMessage } from '../../src/wire/messages.ts'

export class SlowSocket {
  readonly frames: ServerMessage[] = []
  closed = false
  readonly #socket: Socket
  #bytes: Buffer = Buffer.alloc(0)
  #waiting = new Set<() => void>()

  private constructor(
    socket: Socket,
    private readonly onFrame: (frame: ServerMessage) => void,
    private readonly keepFrames: boolean,
  ) {
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    const end = () => {
      this.closed = true
      this.#wake()
    }
    socket.on('close', end)
    socket.on('error', end)
  }

  /** `keepFrames`: false for who only wants to be told of them. */
  static async open(
    url: string,
    onFrame: (frame: ServerMessage) => void = () => {},
    { keepFrames = true }: { readonly keepFrames?: boolean } = {},
  ): Promise<SlowSocket> {
    const { hostname, port } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port) })
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', () => resolve())
      socket.once('error', reject)
    })
    socket.write(
      `GET /ws HTTP/1.1\r\nHost: ${hostname}:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: ${SUBPROTOCOL}\r\n\r\n`,
    )
    const head = await new Promise<Buffer>((resolve, reject) => {
      let seen: Buffer = Buffer.alloc(0)
      const listen = (chunk: Buffer) => {
        seen = Buffer.concat([seen, chunk])
        if (seen.includes('\r\n\r\n')) {
          socket.off('data', listen)
          resolve(seen)
        }
      }
      socket.on('data', listen)
      socket.once('error', reject)
      socket.once('close', () => reject(new Error('closed in the handshake')))
    })
    if (!head.toString('latin1').startsWith('HTTP/1.1 101'))
      throw new Error(`refused: ${head.toString('latin1', 0, 80)}`)
    const slow = new SlowSocket(socket, onFrame, keepFrames)
    slow.#receive(head.subarray(head.indexOf('\r\n\r\n') + 4))
    return slow
  }

  /** Connects and is gone in the middle of the handshake. Rejects if nobody listens. */
  static async abandon(url: string): Promise<void> {
    const { hostname, port } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port) })
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', () => resolve())
      socket.once('error', reject)
    })
    socket.on('error', () => {})
    await new Promise<void>((resolve) => {
      // Never called where the server dies first.
      socket.once('close', () => resolve())
      socket.write('GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgr', () => resolve())
    })
    socket.destroy()
  }

  /** Stops reading: what the server sends fills the buffers between, then its own. */
  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  send(message: ClientMessage): void {
    this.#socket.write(frameOf(message))
  }

  /** Sends the first half of a frame. */
  sendHalf(message: ClientMessage): void {
    const frame = frameOf(message)
    this.#socket.write(frame.subarray(0, frame.length >> 1))
  }

  async until(predicate: () => boolean, what: string): Promise<void> {
    const giveUpAt = Date.now() + 45_000
    while (!predicate()) {
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

  close(): void {
    this.#socket.destroy()
  }

  #receive(chunk: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk])
    for (;;) {
      const frame = takeFrame(this.#bytes)
      if (!frame) break
      this.#bytes = frame.rest
      if (frame.opcode !== 1) continue
      const message = JSON.parse(frame.payload.toString('utf8')) as ServerMessage
      if (this.keepFrames) this.frames.push(message)
      this.onFrame(message)
    }
    this.#wake()
  }

  #wake(): void {
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const resolve of waiting) resolve()
  }
}

/** A whole text frame. Clients must mask (RFC 6455 §5.3); a mask of zeros leaves the payload as it is. */
function frameOf(message: ClientMessage): Buffer {
  const payload = Buffer.from(JSON.stringify(message))
  const length = payload.length
  const head =
    length < 126
      ? Buffer.from([0x81, 0x80 | length])
      : length < 65_536
        ? Buffer.from([0x81, 0x80 | 126, length >> 8, length & 255])
        : Buffer.concat([Buffer.from([0x81, 0x80 | 127, 0, 0, 0, 0]), uint32(length)])
  return Buffer.concat([head, Buffer.alloc(4), payload])
}

function takeFrame(bytes: Buffer): { opcode: number; payload: Buffer; rest: Buffer } | null {
  if (bytes.length < 2) return null
  const short = bytes[1]! & 127
  const headLength = short === 127 ? 10 : short === 126 ? 4 : 2
  if (bytes.length < headLength) return null
  const length =
    short === 127 ? Number(bytes.readBigUInt64BE(2)) : short === 126 ? bytes.readUInt16BE(2) : short
  if (bytes.length < headLength + length) return null
  return {
    opcode: bytes[0]! & 15,
    payload: bytes.subarray(headLength, headLength + length),
    rest: bytes.subarray(headLength + length),
  }
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
