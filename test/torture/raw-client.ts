/**
 * A client that speaks the protocol over a bare socket and behaves, but on the worst of networks: it is cut off at
 * every point of a connection's life, stops reading, comes back to another server, and sends again what was not answered.
 */
import type { Sql } from 'postgres'
import type {
  ClientMessage,
  Id,
  OutcomeMessage,
  ServerMessage,
  WriteMessage,
} from '../../src/wire/messages.ts'
import type { Random } from '../support/random.ts'
import { SlowSocket } from '../support/slow-socket.ts'
import { describeFrame, FrameChecker } from './frame-checker.ts'
import { BOXES, randomClaims, type TableName, tokenOf, type UserClaims } from './model.ts'
import { randomEdit } from './places.ts'
import { pruneLog } from './prune.ts'
import { RawView } from './raw-view.ts'
import type { Actor, TortureWorld } from './world.ts'

const CUT_POINTS = [
  'in the handshake',
  'before auth',
  'in the middle of auth',
  'after auth',
  'after subscribe',
  'at the first rows',
  'never',
] as const
type CutPoint = (typeof CUT_POINTS)[number]

/** A batch is committed well before this, or Postgres is away. */
const COMMIT_WITHIN_MS = 1_500

export class RawClient implements Actor {
  readonly versions = new Map<string, bigint>()
  readonly #heldAt = new Map<string, Map<string, ReadonlySet<Id>>>()
  readonly #views: readonly RawView[]
  readonly #pending = new Map<string, WriteMessage>()
  readonly #answered: { readonly message: WriteMessage; readonly outcome: string }[] = []
  #claims: UserClaims
  #socket: SlowSocket | null = null
  #checker: FrameChecker | null = null
  #names = 0
  #cutAtRows = false

  constructor(
    readonly name: string,
    private readonly world: TortureWorld,
    private readonly random: Random,
    /** Choices that depend on what the network did, kept apart so that they do not move the others. */
    private readonly chance: Random,
  ) {
    this.#claims = randomClaims(random, name)
    this.#views = [new RawView('features', random.pick(BOXES)), new RawView('notes', null)]
  }

  async act(steps: number): Promise<void> {
    for (let step = 0; step < steps; step++) {
      const operation = this.random.weighted(this.#operations)
      if (this.#socket === null || this.#socket.closed) await this.#connect('never')
      await operation()
      await Bun.sleep(this.random.below(100))
    }
  }

  readonly #operations: readonly (readonly [number, () => unknown])[] = [
    [10, () => this.#write()],
    [2, () => this.#replay()],
    [5, () => this.#moveBox()],
    [3, () => this.#swapClaims()],
    [2, () => this.#send({ type: 'ping' })],
    [1.5, () => this.#resubscribe()],
    [1, () => this.#stall(this.random.below(4_000))],
    [2.5, () => this.#cut()],
    [1, () => this.#cutAfterCommit()],
    [0.25, () => this.#cutAndPrune()],
  ]

  // ---- operations ---------------------------------------------------------------------------------------------------

  /** Returns the batch's id. */
  #write(): string {
    const batch = crypto.randomUUID()
    const table: TableName = this.random.chance(0.8) ? 'features' : 'notes'
    const edits = Array.from({ length: 1 + this.random.below(this.random.chance(0.1) ? 40 : 3) }, () => {
      const token = this.world.book.token(this.name, batch)
      const edit = randomEdit(this.random, table, this.#claims.org_id, token)
      if (edit.op === 'delete') this.world.book.deletes(token, table, edit.id)
      return edit
    })
    const message: WriteMessage = { type: 'write', batch, table, edits }
    this.#pending.set(batch, message)
    this.#send(message)
    return batch
  }

  /** What a client does that did not see the answer: it must get the same again. */
  #replay(): void {
    const earlier = this.random.next()
    const known = this.#answered[Math.floor(earlier * this.#answered.length)]
    if (known !== undefined) this.#send(known.message)
  }

  #moveBox(): void {
    const view = this.#views[0]!
    view.bbox = this.random.pick(BOXES)
    this.#send({ type: 'bbox', sub: view.name, seq: ++view.requested, bbox: view.bbox })
  }

  async #swapClaims(): Promise<void> {
    this.#claims = randomClaims(this.random, this.name)
    this.#send({ type: 'auth', token: await tokenOf(this.#claims) })
  }

  #resubscribe(): void {
    const view = this.random.pick(this.#views)
    const keeps = this.random.chance(0.5)
    this.#send({ type: 'unsubscribe', sub: view.name })
    if (!keeps) view.cursor = null
    this.#subscribe(view)
  }

  #stall(milliseconds: number): void {
    const socket = this.#socket
    this.world.history.fault(this.name, 'reader stalled', `for ${milliseconds} ms`)
    socket?.pause()
    setTimeout(() => socket?.resume(), milliseconds)
  }

  /** Loses the socket, perhaps with a batch on its way, and the next one somewhere on the way to being connected. */
  async #cut(): Promise<void> {
    const [point, afterMs] = [this.random.pick(CUT_POINTS), this.random.below(15)]
    if (this.random.chance(0.5)) this.#write()
    await Bun.sleep(afterMs)
    this.#fault('socket cut')
    this.#socket?.close()
    if (this.random.chance(0.3)) this.#claims = randomClaims(this.random, this.name)
    if (this.random.chance(0.3)) this.#views[0]!.bbox = this.random.pick(BOXES)
    if (this.random.chance(0.2)) await Bun.sleep(this.random.below(2_000))
    await this.#connect(point)
  }

  /** The socket dies when the batch is committed, and before its outcome is read. */
  async #cutAfterCommit(): Promise<void> {
    const socket = this.#socket
    socket?.pause()
    const batch = this.#write()
    for (const giveUpAt = Date.now() + COMMIT_WITHIN_MS; Date.now() < giveUpAt; await Bun.sleep(5)) {
      const isCommitted = await this.world.sql`select from datum.batch where id = ${batch}`.catch(() => [])
      if (isCommitted.length === 0) continue
      this.#fault('socket cut between commit and answer')
      break
    }
    socket?.close()
  }

  /** What is resumed from is pruned while the client is away. */
  async #cutAndPrune(): Promise<void> {
    this.#socket?.close()
    await pruneLog(this.world.sql).then(
      () => this.#fault('log pruned under a client that is away'),
      () => {},
    )
  }

  #fault(kind: string): void {
    this.world.history.fault(this.name, kind)
  }

  // ---- the connection -----------------------------------------------------------------------------------------------

  /** Connects until it is connected; the first time it may be cut off on the way. */
  async #connect(cut: CutPoint): Promise<void> {
    for (let point = cut; ; point = 'never') {
      const server = this.chance.pick(this.world.servers)
      if (point !== 'never') this.#fault(`socket cut ${point}`)
      try {
        if (point === 'in the handshake') await SlowSocket.abandon(server.url)
        if (point === 'in the handshake') throw new Error('cut')
        const checker = new FrameChecker({
          ...this.world,
          name: this.name,
          versions: this.versions,
          heldAt: this.#heldAt,
        })
        const socket = await SlowSocket.open(server.url, (frame) => this.#receive(frame, socket, checker))
        this.#socket = socket
        this.#checker = checker
        this.world.history.did(this.name, `connect ${server.name} as ${JSON.stringify(this.#claims)}`)
        if (point === 'before auth') throw new Error('cut')
        const auth: ClientMessage = { type: 'auth', token: await tokenOf(this.#claims) }
        if (point === 'in the middle of auth') {
          socket.sendHalf(auth)
          throw new Error('cut')
        }
        this.#send(auth)
        if (point === 'after auth') throw new Error('cut')
        await socket.until(() => checker.claims !== null, 'authenticated')
        this.#cutAtRows = point === 'at the first rows'
        for (const view of this.#views) this.#subscribe(view)
        if (point === 'after subscribe') throw new Error('cut')
        for (const message of this.#pending.values()) this.#send(message)
        return
      } catch {
        this.#socket?.close()
        await Bun.sleep(100)
      }
    }
  }

  #subscribe(view: RawView): void {
    this.#send(view.subscribe(`${view.table} ${++this.#names}`))
  }

  #send(message: ClientMessage): void {
    if (this.#socket === null || this.#socket.closed) return
    const text = message.type === 'auth' ? `auth ${JSON.stringify(this.#claims)}` : JSON.stringify(message)
    this.world.history.did(this.name, `${message.type} ${text.slice(0, 700)}`)
    this.#checker?.sent(message)
    this.#socket.send(message)
  }

  #receive(frame: ServerMessage, socket: SlowSocket, checker: FrameChecker): void {
    this.world.history.note(this.name, `gets ${describeFrame(frame)}`)
    checker.received(frame)
    socket.frames.length = 0
    if (socket !== this.#socket) return
    if (frame.type === 'subscribed' || frame.type === 'view') this.#apply(frame)
    if (frame.type === 'ended') this.#listAgain(frame.sub)
    if (frame.type === 'pong') for (const view of this.#views) view.remember(frame.cursors[view.name])
    if (frame.type === 'outcome') this.#outcome(frame)
    if (frame.type === 'unavailable') {
      const message = this.#pending.get(frame.batch)
      const again = () => socket === this.#socket && this.#pending.has(frame.batch) && this.#send(message!)
      if (message !== undefined) setTimeout(again, frame.retryAfterMs)
    }
  }

  /** The server does not know what the view held: tells it. */
  #listAgain(sub: string): void {
    const view = this.#views.find(({ name }) => name === sub)
    if (view === undefined) return
    view.isExact = false
    this.#subscribe(view)
  }

  #apply(frame: Extract<ServerMessage, { type: 'subscribed' | 'view' }>): void {
    const view = this.#views.find(({ name }) => name === frame.sub)
    if (frame.type === 'subscribed' && view !== undefined && view.cursor !== null)
      this.world.history.count(frame.resumed ? 'resumed' : 'resume refused')
    view?.apply(frame)
    if (frame.type === 'subscribed') return
    if (this.#cutAtRows && (frame.rows?.length ?? 0) > 0) this.#socket?.close()
  }

  #outcome({ batch, edits }: OutcomeMessage): void {
    const outcome = JSON.stringify(edits)
    const message = this.#pending.get(batch)
    for (const edit of edits) {
      this.world.history.count(edit.status === 'applied' ? 'edits applied' : `edits ${edit.code}`)
      if (edit.status === 'rejected' && edit.code === 'error')
        this.#broken(`batch ${batch} failed: ${edit.message}`)
    }
    if (message === undefined) {
      const known = this.#answered.find((entry) => entry.message.batch === batch)
      if (known !== undefined && known.outcome !== outcome)
        this.#broken(`batch ${batch} has two outcomes: ${known.outcome} and ${outcome}`)
      return
    }
    this.#pending.delete(batch)
    this.world.book.toldBatch(message, edits)
    this.#answered.push({ message, outcome })
    if (this.#answered.length > 50) this.#answered.shift()
  }

  // ---- the check ----------------------------------------------------------------------------------------------------

  /** Until every batch has its outcome and every box is complete; what that takes of new connections included. */
  async settle(): Promise<void> {
    this.#cutAtRows = false
    const isSettled = () => this.#pending.size === 0 && this.#views.every(({ isComplete }) => isComplete)
    for (const giveUpAt = Date.now() + 90_000; ; ) {
      this.#socket?.resume()
      if (this.#socket === null || this.#socket.closed) await this.#connect('never')
      await this.#socket?.until(isSettled, 'settled').catch(() => {})
      if (isSettled() && !this.#socket?.closed) return
      if (Date.now() < giveUpAt) continue
      const incomplete = this.#views.filter(({ isComplete }) => !isComplete).map(({ name }) => name)
      this.#broken(`never settles: ${incomplete} incomplete, unanswered ${[...this.#pending.keys()]}`)
      return
    }
  }

  /** How the views differ from the truth, in words. */
  async differences(sql: Sql): Promise<string[]> {
    return (await Promise.all(this.#views.map((view) => view.differences(sql, this.#claims)))).flat()
  }

  get isConnected(): boolean {
    return this.#socket !== null && !this.#socket.closed
  }

  leave(): void {
    this.#socket?.close()
  }

  #broken(rule: string): void {
    this.world.history.violation(this.name, rule)
  }
}
