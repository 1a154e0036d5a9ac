/** How many sockets each address has open, so that one cannot have them all. */
export class ConnectionCount {
  readonly #max: number
  readonly #open = new Map<string, number>()

  /** `max` for each address; 0: no limit. */
  constructor(max: number) {
    this.#max = max
  }

  mayOpen(address: string): boolean {
    return this.#max === 0 || (this.#open.get(address) ?? 0) < this.#max
  }

  opened(address: string): void {
    this.#open.set(address, (this.#open.get(address) ?? 0) + 1)
  }

  closed(address: string): void {
    const left = (this.#open.get(address) ?? 0) - 1
    if (left > 0) this.#open.set(address, left)
    else this.#open.delete(address)
  }
}
