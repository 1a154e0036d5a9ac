/** How many sockets are open, in all and from each address, so that nobody can have them all. */

/** Who would have too many with one more: the address, or everybody together. */
export type TooMany = 'address' | 'server'

interface ConnectionLimits {
  /** Sockets of one address; 0: no limit. */
  readonly perAddress: number
  /** Sockets of all addresses together; 0: no limit. */
  readonly inAll: number
}

export class ConnectionCount {
  readonly #limits: ConnectionLimits
  readonly #open = new Map<string, number>()
  #inAll = 0

  constructor(limits: ConnectionLimits) {
    this.#limits = limits
  }

  /** What stands in the way of one more socket of this address; null: nothing. */
  refusal(address: string): TooMany | null {
    const { perAddress, inAll } = this.#limits
    if (perAddress !== 0 && (this.#open.get(address) ?? 0) >= perAddress) return 'address'
    return inAll !== 0 && this.#inAll >= inAll ? 'server' : null
  }

  opened(address: string): void {
    this.#inAll++
    this.#open.set(address, (this.#open.get(address) ?? 0) + 1)
  }

  closed(address: string): void {
    this.#inAll--
    const left = (this.#open.get(address) ?? 0) - 1
    if (left > 0) this.#open.set(address, left)
    else this.#open.delete(address)
  }
}
