/**
 * Small numbers that stand for row ids, shared by the subscriptions of one table: what a subscription holds is then a few
 * bytes a row (held-set.ts) in place of a string of its own. A handle lives as long as somebody retains it, and has a
 * keyed hash of its id, by which sets of rows are told apart (view-seal.ts).
 */
import type { Id } from '../wire/messages.ts'

export class RowHandles {
  readonly #key: string
  readonly #digest = new Uint8Array(32)
  readonly #digestWords = new Int32Array(this.#digest.buffer)
  /** 64 bits of each id's hash, in two halves. */
  readonly #hashes: number[] = []
  readonly #handles = new Map<Id, number>()
  readonly #ids: Id[] = []
  /** How often each handle is retained; 0: free for another id. */
  readonly #counts: number[] = []
  readonly #free: number[] = []

  /** `key` is secret: who knows it can make two sets of ids that hash alike. */
  constructor(key: string) {
    this.#key = key
  }

  /** How many ids have a handle. */
  get size(): number {
    return this.#handles.size
  }

  /** The id's handle, which it keeps at least until it is released as often as it was retained. */
  retain(id: Id): number {
    let handle = this.#handles.get(id)
    if (handle === undefined) {
      handle = this.#free.pop() ?? this.#ids.length
      this.#ids[handle] = id
      this.#counts[handle] = 0
      this.#handles.set(id, handle)
      Bun.SHA256.hash(this.#key + id, this.#digest)
      this.#hashes[2 * handle] = this.#digestWords[0]!
      this.#hashes[2 * handle + 1] = this.#digestWords[1]!
    }
    this.#counts[handle]!++
    return handle
  }

  /** One more holder of a handle that is retained already. */
  retainHandle(handle: number): void {
    this.#counts[handle]!++
  }

  release(handle: number): void {
    if (--this.#counts[handle]! > 0) return
    this.#handles.delete(this.#ids[handle]!)
    this.#ids[handle] = ''
    this.#free.push(handle)
  }

  handleOf(id: Id): number | undefined {
    return this.#handles.get(id)
  }

  /** One half of the id's hash, of a handle that is retained. */
  hashOf(handle: number, half: 0 | 1): number {
    return this.#hashes[2 * handle + half]!
  }

  /** Of a handle that is retained. */
  idOf(handle: number): Id {
    return this.#ids[handle]!
  }
}
