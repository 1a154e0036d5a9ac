/**
 * A server that finds itself on a hot standby, as after a failover that went wrong: it can read there and not write.
 * Edits wait, and everything goes on when the primary is back. Invariants 5 and 7.
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openPostgres } from '../../src/db/postgres.ts'
import { createLog } from '../../src/observe/log.ts'
import type { RunningServer } from '../../src/server.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, point, TEST_TIMEOUT_MS } from '../support/fixture.ts'
import { asPostgresUser, findPostgresBinaries, giveToPostgresUser, quietSql } from '../support/postgres.ts'

setDefaultTimeout(3 * TEST_TIMEOUT_MS)

const onOwnCluster = test.skipIf(
  (await backendKind()) === 'embedded' || process.env.DATUM_TEST_DATABASE_URL !== undefined,
)

const alice = { sub: 'alice', org_id: 'a' }

/** Copies the cluster and follows it, until standard input ends. */
const RUN_STANDBY = `
trap '' INT
"$BIN/pg_basebackup" -h 127.0.0.1 -p "$PRIMARY" -U postgres -D "$DIR/data" -R -X stream -c fast >"$DIR/log" 2>&1 || exit 1
"$BIN/postgres" -D "$DIR/data" -p "$PORT" -k "$DIR" -c listen_addresses=127.0.0.1 -c max_connections=300 \\
  -c fsync=off -c shared_buffers=64MB >>"$DIR/log" 2>&1 &
cat >/dev/null
"$BIN/pg_ctl" -D "$DIR/data" -m immediate stop >/dev/null 2>&1
`

async function startStandby(primaryPort: string) {
  const folder = await mkdtemp(join(tmpdir(), 'datum-standby-'))
  await giveToPostgresUser(folder)
  const listener = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } })
  const { port } = listener
  listener.stop(true)
  const command = asPostgresUser('sh', '-c', RUN_STANDBY)
  const shell = Bun.spawn(command, {
    cwd: '/',
    env: {
      PATH: process.env.PATH ?? '',
      BIN: (await findPostgresBinaries()) ?? '',
      DIR: folder,
      PRIMARY: primaryPort,
      PORT: String(port),
    },
    stdin: 'pipe',
    stdout: 'ignore',
    stderr: 'ignore',
  })
  return {
    port,
    async stop() {
      await shell.stdin.end()
      await shell.exited
      await rm(folder, { recursive: true, force: true })
    },
    /** Waits until it answers and is what it should be. */
    async untilAnswering(url: URL) {
      const standby = new URL(url)
      standby.port = String(port)
      const giveUpAt = Date.now() + TEST_TIMEOUT_MS
      for (;;) {
        const sql = quietSql(standby.href)
        const answer = await sql`select pg_is_in_recovery() as recovers`.catch(() => null)
        await sql.end({ timeout: 1 })
        if (answer?.[0]?.recovers === true) return
        if (shell.exitCode !== null || Date.now() > giveUpAt)
          throw new Error(`no standby:\n${await Bun.file(join(folder, 'log')).text()}`)
        await Bun.sleep(100)
      }
    },
  }
}

/** A way to Postgres that can be led elsewhere: what is open is cut then. */
async function switchable(port: number) {
  let target = port
  const sockets = new Set<Socket>()
  const server = createServer((inner) => {
    const outer = connect(target, '127.0.0.1')
    for (const socket of [inner, outer]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => sockets.delete(socket))
    }
    inner.pipe(outer)
    outer.pipe(inner)
    inner.on('close', () => outer.destroy())
    outer.on('close', () => inner.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    port: (server.address() as { port: number }).port,
    leadTo(other: number) {
      target = other
      cut()
    },
    end() {
      server.close()
      cut()
    },
  }
}

async function untilReadiness(server: RunningServer, status: number): Promise<void> {
  const giveUpAt = Date.now() + TEST_TIMEOUT_MS
  while ((await fetch(`${server.url}/readyz`)).status !== status) {
    if (Date.now() > giveUpAt) throw new Error(`/readyz never was ${status}`)
    await Bun.sleep(100)
  }
}

onOwnCluster(
  'I5, I7: on a hot standby edits are unavailable, /readyz says so, and nothing is lost',
  async () => {
    await using world = await createWorld()
    const url = new URL(world.appUrl!)
    const primaryPort = Number(url.port)
    const standby = await startStandby(url.port)
    const proxy = await switchable(primaryPort)
    try {
      await standby.untilAnswering(new URL(world.adminUrl!))
      url.port = String(proxy.port)
      const server = await world.addServer({
        database: openPostgres(url.href, createLog('silent')),
        log: createLog('silent'),
      })
      const { client, view } = await world.watch(alice, { server })
      proxy.leadTo(standby.port)
      await untilReadiness(server, 503)
      const batch = crypto.randomUUID()
      const edits = [
        { op: 'insert', columns: { org_id: 'a', name: 'waits', geom: point(8.5, 47.5) } },
      ] as const
      client.send({ type: 'write', batch, edits })
      expect(await client.next('unavailable')).toMatchObject({ batch })
      await world.put({ org: 'a', name: 'on the primary' })
      await client.ping()
      proxy.leadTo(primaryPort)
      await untilReadiness(server, 200)
      expect((await client.write([...edits], { batch })).edits).toMatchObject([{ status: 'applied' }])
      await world.untilTrue(client, view, alice)
      expect(view.rows.size).toBe(2)
      expect(view.ended).toBeNull()
    } finally {
      proxy.end()
      await standby.stop()
    }
  },
)
