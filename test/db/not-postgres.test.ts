/** What a command makes of a server that is no Postgres, or half of one: one line for its operator, at once. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { mkdtemp } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { startProgram } from '../cli/run-program.ts'
import { TEST_TIMEOUT_MS } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

/** A message of the protocol (Postgres §55.7). */
function message(type: string, body: string | readonly number[] = ''): Buffer {
  const bytes = Buffer.from(body as string)
  const head = Buffer.alloc(5)
  head.write(type)
  head.writeInt32BE(bytes.length + 4, 1)
  return Buffer.concat([head, bytes])
}

const READY = Buffer.concat([message('R', [0, 0, 0, 0]), message('Z', 'I')])
const ASKS_FOR_SCRAM = message('R', [0, 0, 0, 10, ...Buffer.from('SCRAM-SHA-256\0\0')])
const IS_NONE = 'what answers there is no Postgres'

/** What comes back for each piece that a client sends, and the words that the operator is to read. */
const SERVERS: Readonly<Record<string, { readonly answers: readonly (Buffer | string)[]; says: string }>> = {
  'a web server': { answers: ['HTTP/1.1 400 Bad Request\r\n\r\n'], says: IS_NONE },
  zeros: { answers: [Buffer.alloc(4096)], says: IS_NONE },
  'an error of the protocol before the last': { answers: ['Esorry, too many clients\n\0'], says: IS_NONE },
  'a message that is too short': { answers: [message('R')], says: IS_NONE },
  'an unknown message': { answers: [READY, message('?', 'x')], says: IS_NONE },
  'a column whose name does not end': { answers: [READY, message('T', [0, 1, 65, 65])], says: IS_NONE },
  'a copy that nobody asked for': { answers: [READY, message('G', [0, 0, 0])], says: IS_NONE },
  'a row before its columns': { answers: [READY, message('D', [0, 1])], says: IS_NONE },
  'half a SCRAM': { answers: [ASKS_FOR_SCRAM, message('R', [0, 0, 0, 11, 114, 61, 97])], says: IS_NONE },
  'another SCRAM secret': {
    answers: [ASKS_FOR_SCRAM, message('R', [0, 0, 0, 12, ...Buffer.from('v=YWJj')])],
    says: 'it does not know the password',
  },
  Kerberos: { answers: [message('R', [0, 0, 0, 7])], says: 'a way to authenticate' },
  'no TLS': { answers: ['N'], says: 'it has no TLS' },
}

/** Answers each piece that comes in with the next answer there is. Null: closes what connects. */
async function serverOf(answers: () => readonly (Buffer | string)[] | null) {
  let connections = 0
  const server = createServer((socket) => {
    let piece = 0
    connections++
    socket.on('error', () => {})
    socket.on('data', () => {
      const all = answers()
      if (all === null) socket.end()
      else if (piece < all.length) socket.write(all[piece++]!)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as { port: number }).port,
    get connections() {
      return connections
    },
    close: () => server.close(),
  }
}

test('I5: a server that is no Postgres is told from one at once, in one line without the password', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'datum-not-postgres-'))
  const said = await Promise.all(
    Object.entries(SERVERS).map(async ([name, { answers, says }]) => {
      const server = await serverOf(() => answers)
      const url = `postgres://app:a-password@127.0.0.1:${server.port}/places${name === 'no TLS' ? '?sslmode=require' : ''}`
      const program = startProgram(folder, ['check', '-db', url])
      // Some of these were looked at without end.
      const timer = setTimeout(() => program.kill('SIGKILL'), TEST_TIMEOUT_MS / 2)
      const { code, stderr } = await program.outcome
      clearTimeout(timer)
      server.close()
      const lines = stderr.trim().split('\n').length
      return { name, code, lines, isSaid: stderr.includes(says), isSafe: !stderr.includes('a-password') }
    }),
  )
  expect(said).toEqual(
    Object.keys(SERVERS).map((name) => ({ name, code: 1, lines: 1, isSaid: true, isSafe: true })),
  )
})

test('I5: a connection that is given up while it waits for its turn to reconnect is not opened any more', async () => {
  let isThere = false
  const server = await serverOf(() => (isThere ? [READY] : null))
  const sql = postgres({ host: '127.0.0.1', port: server.port, max: 1, backoff: () => 0.2 } as never)
  try {
    expect(await sql`select 1`.catch((error) => error)).toMatchObject({ code: 'CONNECTION_CLOSED' })
    const waiting = sql`select 2`.catch((error) => error)
    await Bun.sleep(20)
    isThere = true
    await sql.end({ timeout: 0 })
    expect(await waiting).toMatchObject({ code: 'CONNECTION_DESTROYED' })
    await Bun.sleep(500)
    expect(server.connections).toBe(1)
  } finally {
    server.close()
  }
})
