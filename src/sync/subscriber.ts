/** What sync needs of a socket. The session implements it; sync knows nothing else of sessions or sockets. */
import type { Principal } from '../auth/principal.ts'
import type { EndCode } from '../wire/messages.ts'

export interface Subscriber {
  /** Who the socket speaks for at this moment. */
  readonly principal: Principal
  /** The socket is gone. What waits for its turn on its behalf need not be done. */
  readonly isClosed: boolean
  /** False while the socket has more queued than the network takes. Sync then keeps dirty ids and no frames. */
  readonly writable: boolean
  /** Sends one frame. Whatever `writable` says it is sent or queued, but sync asks first. */
  send(frame: string): void
  /** The subscription is over; it is unregistered already. */
  ended(subscription: string, code: EndCode, message: string): void
}
