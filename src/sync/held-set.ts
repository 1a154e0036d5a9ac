/**
 * The rows that one client holds, as handles (row-handles.ts) in an open-addressing hash table of 32-bit words: five to
 * eleven bytes a row in a view that grows, where a `Set` of strings takes ten times as much.
 */
import type { Id } from '../wire/messages.ts'
import type { RowHandles } from './row-handles.ts'

/** Slots of the smallest table, of which there is one for each idle subscription. A power of two, as all sizes. */
const SLOTS_MIN = 8
/** Fibonacci hashing (Knuth, TAOCP 6.4): neighbouring handles land far apart. */
const MULTIPLIER = 0x9e3779b1

export class HeldSet {
  readonly #handles: RowHandles
  /** A handle plus one, or 0 for an empty slot. Linear probing. */
  #slots = new Uint32Array(SLOTS_MIN)
  #size = 0
  /** The hashes of all ids, added up without carry, so that a row more or less costs one step. */
  #hash: [number, number] = [0, 0]

  constructor(handles: RowHandles) {
    this.#handles = handles
  }

  get size(): number {
    return this.#size
  }

  /** The same for the same rows, whatever order they came in. To be kept secret, as {@link RowHandles}'s key. */
  get hash(): string {
    return `${this.#size}.${this.#hash[0]}.${this.#hash[1]}`
  }

  has(id: Id): boolean {
    const handle = this.#handles.handleOf(id)
    return handle !== undefined && this.hasHandle(handle)
  }

  hasHandle(handle: number): boolean {
    return this.#slots[this.#find(handle)] !== 0
  }

  add(id: Id): void {
    const handle = this.#handles.retain(id)
    this.addHandle(handle)
    this.#handles.release(handle)
  }

  /** `handle` must be retained by the caller for as long as this takes. */
  addHandle(handle: number): void {
    const slot = this.#find(handle)
    if (this.#slots[slot] !== 0) return
    this.#handles.retainHandle(handle)
    this.#slots[slot] = handle + 1
    this.#flip(handle)
    // At three quarters, linear probing still finds what it looks for in a few steps.
    if (++this.#size * 4 > this.#slots.length * 3) this.#resize(this.#slots.length * 2)
  }

  /** Whether it was held. */
  delete(id: Id): boolean {
    const handle = this.#handles.handleOf(id)
    return handle !== undefined && this.deleteHandle(handle)
  }

  /** Whether it was held. */
  deleteHandle(handle: number): boolean {
    const slots = this.#slots
    let hole = this.#find(handle)
    if (slots[hole] === 0) return false
    // What follows moves up where it may, so that no search ends at the hole (Knuth, TAOCP 6.4, algorithm R).
    const mask = slots.length - 1
    for (let next = (hole + 1) & mask; slots[next] !== 0; next = (next + 1) & mask) {
      const home = this.#homeOf(slots[next]! - 1)
      if (((next - home) & mask) < ((next - hole) & mask)) continue
      slots[hole] = slots[next]!
      hole = next
    }
    slots[hole] = 0
    this.#size--
    this.#flip(handle)
    this.#handles.release(handle)
    if (slots.length > SLOTS_MIN && this.#size * 8 < slots.length) this.#resize(slots.length / 2)
    return true
  }

  clear(): void {
    for (const value of this.#slots) if (value !== 0) this.#handles.release(value - 1)
    this.#slots = new Uint32Array(SLOTS_MIN)
    this.#size = 0
    this.#hash = [0, 0]
  }

  copy(): HeldSet {
    const copy = new HeldSet(this.#handles)
    copy.#slots = this.#slots.slice()
    copy.#size = this.#size
    copy.#hash = [...this.#hash]
    for (const value of copy.#slots) if (value !== 0) this.#handles.retainHandle(value - 1)
    return copy
  }

  /** Each id; what changes meanwhile may be seen or not. */
  *ids(): Generator<Id> {
    for (const value of this.#slots) if (value !== 0) yield this.#handles.idOf(value - 1)
  }

  #flip(handle: number): void {
    this.#hash[0] ^= this.#handles.hashOf(handle, 0)
    this.#hash[1] ^= this.#handles.hashOf(handle, 1)
  }

  #homeOf(handle: number): number {
    return (Math.imul(handle, MULTIPLIER) >>> 7) & (this.#slots.length - 1)
  }

  /** The slot that has the handle, or the empty one where it would go. */
  #find(handle: number): number {
    const mask = this.#slots.length - 1
    let slot = this.#homeOf(handle)
    while (this.#slots[slot] !== 0 && this.#slots[slot] !== handle + 1) slot = (slot + 1) & mask
    return slot
  }

  #resize(length: number): void {
    const before = this.#slots
    this.#slots = new Uint32Array(length)
    for (const value of before) if (value !== 0) this.#slots[this.#find(value - 1)] = value
  }
}
