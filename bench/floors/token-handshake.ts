/** The floor of a reconnect storm, a helper process: takes sockets, verifies their tokens with the same library, says so. */
import { jwtVerify } from 'jose'
import { TEST_SECRET } from '../../test/support/token.ts'
import { answerCommands } from '../helper-process.ts'

answerCommands({
  listen(): string {
    const server = Bun.serve<undefined>({
      port: 0,
      hostname: '127.0.0.1',
      fetch: (request, self) => (self.upgrade(request) ? undefined : new Response(null, { status: 426 })),
      websocket: {
        async message(socket, frame) {
          const { token } = JSON.parse(String(frame)) as { token: string }
          const { payload } = await jwtVerify(token, TEST_SECRET, { algorithms: ['HS256'] })
          socket.send(JSON.stringify({ type: 'authenticated', expiresAt: payload.exp }))
        },
      },
    })
    return `ws://127.0.0.1:${server.port}/ws`
  },
})
