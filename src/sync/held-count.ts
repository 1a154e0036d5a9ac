/**
 * Counts the rows that all subscriptions hold, by socket and in all, which is most of what views cost the server: some
 * eight bytes for each row of each view (held-set.ts), and about 250 for each row that is in any, for its id
 * (row-handles.ts). `subscription.ts` reports its own and asks before it takes more.
 */
import { ROWS_PER_SOCKET_MAX } from '../wire/limits.ts'
import type { Subscriber } from './subscriber.ts'

export class HeldCount {
  readonly #max: number
  readonly #bySocket = new Map<Subscriber, number>()
  #inAll = 0

  /** `max` of the process; 0: no limit. */
  constructor(max: number) {
    this.#max = max
  }

  get inAll(): number {
    return this.#inAll
  }

  /** A socket's subscription holds so many more, or fewer. */
  changed(socket: Subscriber, by: number): void {
    this.#inAll += by
    const held = (this.#bySocket.get(socket) ?? 0) + by
    if (held === 0) this.#bySocket.delete(socket)
    else this.#bySocket.set(socket, held)
  }

  /** Whether a socket holds too many with `more`. */
  tooManyOn(socket: Subscriber, more: number): boolean {
    return (this.#bySocket.get(socket) ?? 0) + more > ROWS_PER_SOCKET_MAX
  }

  /** Whether the process does. */
  tooManyInAll(more: number): boolean {
    return this.#max !== 0 && this.#inAll + more > this.#max
  }
}
