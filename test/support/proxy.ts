/** A way to Postgres that a test can cut, as a network goes: without a word. */
import { connect, createServer, type Socket } from 'node:net'

/** `cut`: what is open hangs. `turnAway`: what is open closes, as does what opens, which is how a proxy has no target. */
export async function proxyTo(databaseUrl: string) {
  const target = new URL(databaseUrl)
  const sockets = new Set<Socket>()
  let isTurningAway = false
  let turnedAway = 0
  const server = createServer((inner) => {
    if (isTurningAway) {
      turnedAway++
      inner.on('error', () => {}).end()
      return
    }
    const outer = connect(Number(target.port), target.hostname)
    for (const socket of [inner, outer]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => sockets.delete(socket))
    }
    inner.on('data', (data) => outer.write(data))
    outer.on('data', (data) => inner.write(data))
    inner.on('close', () => outer.destroy())
    outer.on('close', () => inner.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  const url = new URL(target)
  url.port = String(port)
  const end = () => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    port,
    /** Of the same database by this way. */
    url: url.href,
    /** `refuse`: new connections, too. */
    cut(refuse: boolean) {
      if (refuse) server.close()
      for (const socket of sockets) socket.removeAllListeners('data').pause()
    },
    /** How many came in vain: since it was last asked to. */
    get turnedAway() {
      return turnedAway
    },
    turnAway(doesTurnAway: boolean) {
      isTurningAway = doesTurnAway
      turnedAway = 0
      if (doesTurnAway) for (const socket of sockets) socket.destroy()
    },
    end,
    [Symbol.dispose]: end,
  }
}
