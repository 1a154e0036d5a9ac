/**
 * The floor of fan-out's CPU, a helper process: a bare Bun.serve that sends frames of the same sizes, as many, to as
 * many sockets, in a loop, and does nothing else.
 */
import type { ServerWebSocket } from 'bun'
import { answerCommands } from '../helper-process.ts'

const sockets = new Set<ServerWebSocket<undefined>>()

answerCommands({
  listen(): string {
    const server = Bun.serve<undefined>({
      port: 0,
      hostname: '127.0.0.1',
      fetch: (request, self) => (self.upgrade(request) ? undefined : new Response(null, { status: 426 })),
      websocket: {
        open: (socket) => void sockets.add(socket),
        // A client of the protocol is told what it waits for, so that it takes the socket for open.
        message(socket, frame) {
          const { type } = JSON.parse(String(frame)) as { type: string }
          if (type === 'auth') socket.send('{"type":"authenticated","expiresAt":null}')
          else if (type === 'subscribe') socket.send('{"type":"view","sub":"map","complete":0}')
        },
        close: (socket) => void sockets.delete(socket),
      },
    })
    return `ws://127.0.0.1:${server.port}/ws`
  },

  /** Sends so many frames of so many bytes to every socket, whose text the sockets of a group share. */
  async send({ frames, bytes, groups }: { frames: number; bytes: number; groups: number }): Promise<void> {
    for (let frame = 0; frame < frames; frame++) {
      const bodies = Array.from({ length: groups }, (_, group) =>
        `{"type":"view","sub":"${group}`.padEnd(bytes, 'x'),
      )
      let index = 0
      for (const socket of sockets) socket.send(bodies[index++ % groups]!)
      // Lets the kernel take what was written, as a server that waits for its database does.
      await Bun.sleep(0)
    }
  },
})
