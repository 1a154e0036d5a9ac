/**
 * The floor of latency, a helper process: listens to what a trigger notifies, and forwards it to the sockets of the
 * tenant it is for. It reads nothing, checks nothing, and loses what comes while it is away.
 */
import postgres from 'postgres'
import { answerCommands } from '../helper-process.ts'

/** Length of an `org_id`, which the trigger puts in front of the row. */
const ORG_LENGTH = 36

answerCommands({
  async listen({ databaseUrl }: { databaseUrl: string }): Promise<string> {
    const server = Bun.serve<undefined>({
      port: 0,
      hostname: '127.0.0.1',
      fetch: (request, self) => (self.upgrade(request) ? undefined : new Response(null, { status: 426 })),
      websocket: {
        message(socket, frame) {
          const { type, token } = JSON.parse(String(frame)) as { type: string; token?: string }
          if (type === 'auth') {
            const claims = Buffer.from(token!.split('.')[1]!, 'base64url').toString()
            socket.subscribe((JSON.parse(claims) as { org_id: string }).org_id)
            socket.send('{"type":"authenticated","expiresAt":null}')
          } else socket.send('{"type":"view","sub":"map","complete":0}')
        },
      },
    })
    const sql = postgres(databaseUrl, { max: 1, onnotice: () => {}, fetch_types: false })
    await sql.listen('floor', (payload) => {
      server.publish(
        payload.slice(0, ORG_LENGTH),
        `{"type":"view","sub":"map","rows":[${payload.slice(ORG_LENGTH)}]}`,
      )
    })
    return `ws://127.0.0.1:${server.port}/ws`
  },
})
