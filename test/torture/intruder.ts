/**
 * Somebody without a right to anything: no token, a forged one, one that is over, somebody else's for a refresh, halves
 * of handshakes and frames. Must get nothing but `error` and the socket's end, and change nothing.
 */
import type { ClientMessage, ServerMessage } from '../../src/wire/messages.ts'
import type { Random } from '../support/random.ts'
import { SlowSocket } from '../support/slow-socket.ts'
import { mintToken } from '../support/token.ts'
import { BOXES, randomClaims, tokenOf } from './model.ts'
import { featureId } from './places.ts'
import type { Actor, TortureWorld } from './world.ts'

const OTHER_SECRET = new TextEncoder().encode('a secret that this server was never given by anybody')

export class Intruder implements Actor {
  constructor(
    readonly name: string,
    private readonly world: TortureWorld,
    private readonly random: Random,
  ) {}

  async act(steps: number): Promise<void> {
    for (let step = 0; step < steps; step++) {
      const attack = this.random.pick(this.#attacks)
      const server = this.random.pick(this.world.servers)
      // A server that is down refuses everybody.
      await attack(server.url).catch((error) =>
        this.world.history.note(this.name, `not connected: ${String(error)}`),
      )
      await Bun.sleep(this.random.below(500))
    }
  }

  readonly #attacks: readonly ((url: string) => Promise<void>)[] = [
    (url) => SlowSocket.abandon(url),
    (url) => this.#enter(url, []),
    (url) => this.#enterWith(url, mintToken({ ...randomClaims(this.random, this.name) }, OTHER_SECRET)),
    (url) => this.#enterWith(url, tokenOf(randomClaims(this.random, this.name), -1)),
    (url) => this.#enterWith(url, withoutSignature(randomClaims(this.random, this.name))),
    (url) => this.#refreshAs(url),
  ]

  async #enterWith(url: string, token: Promise<string>): Promise<void> {
    await this.#enter(url, [{ type: 'auth', token: await token }])
  }

  /** Everything at once, right behind what must be refused. */
  async #enter(url: string, first: readonly ClientMessage[]): Promise<void> {
    this.world.history.did(this.name, `intrude ${first.length === 0 ? 'without a token' : 'with a token'}`)
    await this.#knock(url, [...first, ...this.#wishes()], (frame) => frame.type === 'error')
  }

  /** A socket that is somebody's cannot become another's: what comes behind the other's token is not obeyed. */
  async #refreshAs(url: string): Promise<void> {
    this.world.history.did(this.name, 'intrude by a refresh as somebody else')
    const first = await tokenOf(randomClaims(this.random, this.name))
    const second = await tokenOf(randomClaims(this.random, 'raw 0'))
    let authenticated = 0
    const messages: ClientMessage[] = [
      { type: 'auth', token: first },
      { type: 'auth', token: second },
      ...this.#wishes(),
    ]
    await this.#knock(
      url,
      messages,
      ({ type }) => type === 'error' || (type === 'authenticated' && ++authenticated === 1),
    )
  }

  #wishes(): ClientMessage[] {
    const token = this.world.book.token(this.name, 'an intruder')
    this.world.book.told(token, 'rejected')
    const columns = { token, id: featureId(this.random.below(400)), org_id: 'a' }
    return [
      { type: 'subscribe', sub: 's', table: 'features', bbox: this.random.pick(BOXES) },
      { type: 'write', batch: crypto.randomUUID(), table: 'features', edits: [{ op: 'insert', columns }] },
      { type: 'ping' },
    ]
  }

  async #knock(
    url: string,
    messages: readonly ClientMessage[],
    isAllowed: (frame: ServerMessage) => boolean,
  ): Promise<void> {
    const socket = await SlowSocket.open(url, (frame) => {
      this.world.history.count('frames')
      if (!isAllowed(frame)) this.world.history.violation(this.name, `I1: an intruder gets ${frame.type}`)
    })
    for (const message of messages) socket.send(message)
    // The server that does not close it is frozen, or killed and then the socket is closed too.
    await socket.until(() => socket.closed, 'closed').catch(() => {})
    if (!socket.closed) this.world.history.violation(this.name, 'I1: an intruder is not thrown out')
    socket.close()
  }
}

async function withoutSignature(claims: object): Promise<string> {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return `${part({ alg: 'none', typ: 'JWT' })}.${part({ ...claims, exp: 4_000_000_000 })}.`
}
