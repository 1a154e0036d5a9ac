/** The socket of a session that is tested without a network: takes whatever it is sent, and tells how it was closed. */
import type { Session } from '../../src/session/session.ts'

export function silentSocket(): {
  readonly socket: ConstructorParameters<typeof Session>[0]
  /** Codes that it was closed with. */
  readonly closed: readonly number[]
} {
  const closed: number[] = []
  const socket = {
    address: 'somewhere',
    queuedBytes: () => 0,
    cutOff: () => {},
    authenticated: () => {},
    send: () => 1,
    close: (code: number) => void closed.push(code),
  }
  return { socket, closed }
}
