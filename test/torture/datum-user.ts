/** An application on the package's own client, `DatumClient`, whose sockets are watched frame by frame and cut. */
import type { Sql } from 'postgres'
import { DatumClient, type DatumError } from '../../client/index.ts'
import type { Bbox, ClientMessage, Id, Row, ServerMessage } from '../../src/wire/messages.ts'
import { differences } from '../support/differences.ts'
import type { Random } from '../support/random.ts'
import { truth } from '../support/truth.ts'
import { describeFrame, FrameChecker } from './frame-checker.ts'
import { BOXES, randomClaims, tokenOf } from './model.ts'
import { randomEdit } from './places.ts'
import type { Actor, TortureWorld } from './world.ts'

export class DatumUser implements Actor {
  readonly #versions = new Map<string, bigint>()
  readonly #heldAt = new Map<string, Map<string, ReadonlySet<Id>>>()
  #client: DatumClient | null = null
  #checker: FrameChecker | null = null
  #bbox: Bbox
  #cut: () => void = () => {}

  constructor(
    readonly name: string,
    private readonly world: TortureWorld,
    private readonly random: Random,
    private readonly chance: Random,
  ) {
    this.#bbox = random.pick(BOXES)
  }

  async act(steps: number): Promise<void> {
    for (let step = 0; step < steps; step++) {
      const operation = this.random.weighted(this.#operations)
      this.#client ??= await this.#connect()
      await operation(this.#client)
      await Bun.sleep(this.random.below(100))
    }
  }

  readonly #operations: readonly (readonly [number, (client: DatumClient) => unknown])[] = [
    [10, (client) => this.#edit(client)],
    [4, (client) => this.#moveBox(client)],
    [2, () => this.#cut()],
    [0.5, (client) => this.#disconnect(client)],
  ]

  #edit(client: DatumClient): void {
    const token = this.world.book.token(this.name, 'a DatumClient')
    const edit = randomEdit(this.random, 'features', this.#checker?.claims?.org_id ?? 'a', token)
    if (edit.op === 'delete') this.world.book.deletes(token, 'features', edit.id)
    this.world.history.did(this.name, `edit ${JSON.stringify(edit)}`)
    const promise: Promise<unknown> =
      edit.op === 'insert'
        ? client.insert(edit.columns)
        : edit.op === 'update'
          ? client.update(edit.id, edit.columns)
          : client.delete(edit.id)
    promise.then(
      () => this.world.book.told(token, 'applied'),
      ({ code, message }: DatumError) => {
        this.world.history.note(this.name, `edit ${token} rejected: ${code}`)
        // With `disconnected` nobody knows.
        if (code !== 'disconnected') this.world.book.told(token, 'rejected')
        if (!/^(?:disconnected|forbidden|not_found|conflict|invalid|timeout)$/.test(code))
          this.#broken(`an edit failed: ${code} ${message}`)
      },
    )
  }

  #moveBox(client: DatumClient): void {
    this.#bbox = this.random.pick(BOXES)
    this.world.history.did(this.name, `setBbox ${this.#bbox}`)
    client.setBbox(this.#bbox).catch(({ code }: DatumError) => {
      if (code !== 'disconnected') this.#broken(`setBbox failed: ${code}`)
    })
  }

  async #disconnect(client: DatumClient): Promise<void> {
    this.world.history.did(this.name, 'disconnect')
    this.#client = null
    await client.disconnect()
  }

  async #connect(): Promise<DatumClient> {
    for (;;) {
      const server = this.chance.pick(this.world.servers)
      this.world.history.did(this.name, `connect ${server.name}`)
      try {
        const client = await DatumClient.connect({
          serverUrl: server.url,
          bbox: this.#bbox,
          table: 'features',
          // Short-lived, so that it is refreshed on open sockets, each time with claims of its own.
          token: () => tokenOf(randomClaims(this.chance, this.name), 10 + this.chance.below(30)),
          WebSocket: this.#watchedSocket(),
        })
        client.onError(({ code, message }) => this.#broken(`onError: ${code} ${message}`))
        return client
      } catch (error) {
        const { code } = error as DatumError
        this.world.history.note(this.name, `connect failed: ${code}`)
        if (code !== 'timeout') this.#broken(`connect failed: ${code}`)
      }
    }
  }

  /** A WebSocket class whose traffic the checker sees before the client does. */
  #watchedSocket() {
    const user = this
    return class extends WebSocket {
      readonly #frames = new FrameChecker({
        ...user.world,
        name: user.name,
        versions: user.#versions,
        heldAt: user.#heldAt,
      })

      constructor(url: string, protocols: string[]) {
        super(url, protocols)
        this.addEventListener('message', ({ data }) => {
          const frame = JSON.parse(data as string) as ServerMessage
          user.world.history.note(user.name, `gets ${describeFrame(frame)}`)
          this.#frames.received(frame)
        })
        user.#checker = this.#frames
        user.#cut = () => {
          user.world.history.fault(user.name, 'socket cut')
          ;(this as unknown as { terminate(): void }).terminate()
        }
      }

      override send(data: string): void {
        const message = JSON.parse(data) as ClientMessage
        user.world.history.note(user.name, `sends ${message.type === 'auth' ? 'auth' : data.slice(0, 500)}`)
        this.#frames.sent(message)
        super.send(data)
      }
    }
  }

  async settle(): Promise<void> {
    this.#client ??= await this.#connect()
    const client = this.#client
    for (const giveUpAt = Date.now() + 90_000; ; await Bun.sleep(50)) {
      if (client.connectionStatus === 'connected' && client.pendingCount === 0) break
      if (Date.now() < giveUpAt) continue
      return this.#broken(`never settles: ${client.connectionStatus}, ${client.pendingCount} edits pending`)
    }
    await client.setBbox(this.#bbox).catch(({ code }: DatumError) => this.#broken(`setBbox failed: ${code}`))
  }

  async differences(sql: Sql): Promise<string[]> {
    const claims = this.#checker?.claims
    if (!claims || this.#client === null) return ['not connected']
    const expected = await truth(
      sql,
      { ...claims },
      { table: 'features', geometryColumn: 'geom', bbox: this.#bbox },
    )
    return differences(expected, this.#client.rows as ReadonlyMap<string, Row>, 'geom')
  }

  get isConnected(): boolean {
    return this.#client?.connectionStatus === 'connected'
  }

  leave(): void {
    void this.#client?.disconnect()
  }

  #broken(rule: string): void {
    this.world.history.violation(this.name, rule)
  }
}
