/**
 * A helper process that is many clients: opens sockets of the protocol, then watches what comes to them. A row of the
 * benchmark drives it through {@link SocketCommands}; see `helper-process.ts`.
 */

import type { Bbox } from '../../src/wire/messages.ts'
import { type Claims, mintToken } from '../../test/support/token.ts'
import { now } from '../clock.ts'
import { answerCommands } from '../helper-process.ts'
import { ProtocolClient } from './protocol-client.ts'

interface OpenArgument {
  readonly url: string
  readonly bbox: Bbox
  /** The token's claims of each socket. */
  readonly users: readonly Claims[]
  /** Sockets that are being opened at a time. */
  readonly atATime: number
  readonly remembers?: boolean
  /** Go no further than the token. */
  readonly onlyAuthenticate?: boolean
}

export interface Traffic {
  /** When the last of it came, by `clock.ts`. */
  readonly at: number
  readonly frames: number
  readonly bytes: number
}

/**
 * Updates are numbered in the column `rev`. The socket of user `n` is to get those numbers between `from` and
 * `from + count` that leave the remainder `n % groups` when divided by `groups`, and no others.
 */
interface CollectArgument {
  readonly from: number
  readonly count: number
  readonly groups: number
}

const REV = Buffer.from('"rev":')
const AT = Buffer.from('"at":')
const DIGIT_0 = 48
const COMMA = 44

let clients: ProtocolClient[] = []
let onView: (index: number, payload: Buffer) => void = () => {}

answerCommands({
  /** Resolves to how long it took, in milliseconds, without the making of the tokens. */
  async open({
    url,
    bbox,
    users,
    atATime,
    remembers = false,
    onlyAuthenticate = false,
  }: OpenArgument): Promise<number> {
    const tokens = await Promise.all(users.map((claims) => mintToken(claims)))
    const first = clients.length
    const opened = tokens.map(
      (token, index) =>
        new ProtocolClient({
          ...{ url, bbox, token, remembers, onlyAuthenticate },
          onView: (payload) => onView(first + index, payload),
        }),
    )
    clients = clients.concat(opened)
    const began = performance.now()
    await eachOf(opened, atATime, (client) => client.open())
    return performance.now() - began
  },

  /** Every socket is lost. */
  drop(): void {
    for (const client of clients) client.drop()
  },

  /** Opens each again, from its cursor if it has one. Resolves to how long that took, in milliseconds. */
  async reopen({ atATime }: { atATime: number }): Promise<number> {
    const began = performance.now()
    await eachOf(clients, atATime, (client) => client.open())
    const elapsed = performance.now() - began
    const anew = clients.filter(({ isAnew }) => isAnew).length
    if (anew > 0) throw new Error(`${anew} sockets were not resumed`)
    return elapsed
  },

  /** Gets ready to collect. Afterwards `collected` waits for the end. */
  collect(argument: CollectArgument): void {
    collection = collecting(argument)
  },
  collected: () => collection,

  /** Gets ready to wait for so many bytes of messages, whatever they are. Afterwards `collected` waits for the end. */
  collectBytes({ atLeast }: { atLeast: number }): void {
    const { promise, resolve } = Promise.withResolvers<Traffic>()
    let frames = 0
    let bytes = 0
    onView = (_, payload) => {
      frames++
      bytes += payload.length
      if (bytes >= atLeast) resolve({ at: now(), frames, bytes })
    }
    collection = promise
  },

  /** From now on: how long after the time in its column `at` each row came, in milliseconds. */
  sample(): void {
    samples.length = 0
    onView = (_, payload) => {
      const received = now()
      for (let found = payload.indexOf(AT); found >= 0; found = payload.indexOf(AT, found + 1)) {
        const start = found + AT.length
        samples.push(received - Number(payload.toString('latin1', start, payload.indexOf(COMMA, start))))
      }
    }
  },
  samples: (): readonly number[] => samples,

  traffic: () => ({
    received: clients.reduce((sum, { bytesReceived }) => sum + bytesReceived, 0),
    sent: clients.reduce((sum, { bytesSent }) => sum + bytesSent, 0),
    held: clients.reduce((sum, { heldCount }) => sum + heldCount, 0),
    listed: clients.reduce((sum, { listed }) => sum + listed, 0),
  }),

  close(): void {
    for (const client of clients) client.drop()
    clients = []
  },
})

const samples: number[] = []
let collection: Promise<Traffic> | null = null

function collecting({ from, count, groups }: CollectArgument): Promise<Traffic> {
  const { promise, resolve, reject } = Promise.withResolvers<Traffic>()
  const seen = clients.map(() => new Uint8Array(count))
  let missing = clients.reduce((sum, _, index) => sum + expectedOf(index % groups, count, groups), 0)
  let frames = 0
  let bytes = 0
  onView = (index, payload) => {
    frames++
    bytes += payload.length
    const own = seen[index]!
    for (let found = payload.indexOf(REV); found >= 0; found = payload.indexOf(REV, found + REV.length)) {
      const number = digitsAt(payload, found + REV.length) - from
      // Others are what was there before the updates.
      if (number < 0 || number >= count || own[number] === 1) continue
      if (number % groups !== index % groups)
        reject(new Error(`socket ${index} got update ${number}, which it may not see`))
      own[number] = 1
      missing--
    }
    if (missing === 0) resolve({ at: now(), frames, bytes })
  }
  if (missing === 0) resolve({ at: now(), frames, bytes })
  return promise
}

function expectedOf(group: number, count: number, groups: number): number {
  return Math.floor((count - 1 - group) / groups) + 1
}

/** -1 for a negative number. */
function digitsAt(bytes: Buffer, start: number): number {
  let value = 0
  let at = start
  for (; bytes[at]! >= DIGIT_0 && bytes[at]! < DIGIT_0 + 10; at++) value = value * 10 + bytes[at]! - DIGIT_0
  return at === start ? -1 : value
}

async function eachOf<T>(
  items: readonly T[],
  atATime: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items.values()
  const worker = async () => {
    for (const item of queue) await work(item)
  }
  await Promise.all(Array.from({ length: Math.min(atATime, items.length) }, worker))
}
