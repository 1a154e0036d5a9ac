/**
 * What a thousand clients that stop reading cost the server, which runs as a process of its own: a script, since it
 * measures memory, and takes a minute.
 *
 *     bun test/hostile/stopped-readers.ts [--sockets 1000] [--rounds 30]
 *
 * Everybody subscribes to the same view; most stop reading; then every row is rewritten again and again. Reported are
 * the server's resident memory beyond what it has while all sockets read, per socket, as a ratio to the bytes
 * that were written for each, and whether each socket ends with the final state when it reads again.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { ServerMessage } from '../../src/wire/messages.ts'
import { startProgram } from '../cli/run-program.ts'
import { stopBackend } from '../support/backend.ts'
import { createWorld, ZURICH } from '../support/fixture.ts'
import { SlowSocket } from '../support/slow-socket.ts'
import { mintToken, TEST_SECRET } from '../support/token.ts'

const { values } = parseArgs({
  options: { sockets: { type: 'string', default: '1000' }, rounds: { type: 'string', default: '30' } },
})
const sockets = Number(values.sockets)
const rounds = Number(values.rounds)
/** 100 rows of 10 kB: a megabyte for each socket and round. */
const ROWS = 100
const ROW_BYTES = 10_000
const MEBIBYTE = 1024 * 1024

/** What a client shows: the newest `size` of each row. Frames are not kept, or the script would be what is measured. */
class Reader {
  readonly sizes = new Map<string, unknown>()
  received = 0
  isComplete = false

  take(frame: ServerMessage): void {
    if (frame.type !== 'view') return
    for (const row of frame.rows ?? []) this.sizes.set(String(row.id), row.size)
    for (const id of frame.gone ?? []) this.sizes.delete(id)
    this.received += frame.rows?.length ?? 0
    if (frame.complete === 0) this.isComplete = true
  }

  shows(count: number, size: number): boolean {
    return this.sizes.size === count && [...this.sizes.values()].every((value) => value === size)
  }
}

async function residentBytes(pid: number): Promise<number> {
  const status = await Bun.file(`/proc/${pid}/status`).text()
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024
}

async function queuedBytes(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text()
  return Number(/^datum_queued_bytes (\d+)$/m.exec(text)?.[1])
}

const world = await createWorld({ start: true })
if (world.appUrl === null) throw new Error('this needs a Postgres over the network')
await world.server.stop()
await world.admin`
  insert into features (org_id, name, size, geom)
  select 'a', '', 0, st_setsrid(st_makepoint(8.5, 47.5), 4326) from generate_series(1, ${ROWS})`
const folder = await mkdtemp(join(tmpdir(), 'datum-stopped-'))
await Bun.write(join(folder, 'datum.yaml'), 'table: {name: features}\nauth: {jwt_algorithm: HS256}\n')
const program = startProgram(folder, ['serve', '--port', '0', '-db', world.appUrl], {
  JWT_SECRET: new TextDecoder().decode(TEST_SECRET),
})
try {
  const { url } = await program.ready()
  const token = await mintToken({ sub: 'alice', org_id: 'a' })
  const open = async () => {
    const reader = new Reader()
    const socket = await SlowSocket.open(url, (frame) => reader.take(frame), { keepFrames: false })
    socket.send({ type: 'auth', token })
    socket.send({ type: 'subscribe', sub: 's', bbox: ZURICH })
    await socket.until(() => reader.isComplete, 'complete')
    return { reader, socket }
  }
  const onlooker = await open()
  const all: Awaited<ReturnType<typeof open>>[] = []
  while (all.length < sockets)
    all.push(...(await Promise.all(Array.from({ length: Math.min(50, sockets - all.length) }, open))))
  const writeRound = async (round: number, bytes: number) => {
    await world.admin`update features set size = ${round}, name = repeat('x', ${bytes})`
    await onlooker.socket.until(() => onlooker.reader.shows(ROWS, round), `round ${round}`)
  }
  // One round that all read, so that what the work itself takes is not counted as theirs. It is a small one: the kernel
  // gives larger buffers to sockets that read much, and a thousand of those are more than it has.
  await writeRound(1, 100)
  for (const { socket, reader } of all) await socket.until(() => reader.shows(ROWS, 1), 'the first round')
  const before = await residentBytes(program.pid)
  for (const { socket } of all) socket.pause()
  let peak = before
  let queued = 0
  for (let round = 2; round <= rounds + 1; round++) {
    await writeRound(round, ROW_BYTES)
    peak = Math.max(peak, await residentBytes(program.pid))
    queued = Math.max(queued, await queuedBytes(url))
  }
  const received = all.reduce((sum, { reader }) => sum + reader.received, 0)
  for (const { socket } of all) socket.resume()
  for (const { socket, reader } of all)
    await socket.until(() => reader.shows(ROWS, rounds + 1), 'the final state')
  const versions = all.reduce((sum, { reader }) => sum + reader.received, 0) - received
  const written = rounds * ROWS * ROW_BYTES
  const perSocket = (peak - before) / sockets
  process.stdout.write(
    `${[
      `${sockets} sockets stopped reading; ${rounds} rounds wrote ${(written / MEBIBYTE).toFixed(1)} MiB for each`,
      `resident: ${(before / MEBIBYTE).toFixed(0)} MiB while all read, at most ${(peak / MEBIBYTE).toFixed(0)} MiB after`,
      `grown per socket: ${(perSocket / 1024).toFixed(0)} KiB, ${((100 * perSocket) / written).toFixed(1)} % of what was written for it`,
      `queued in sockets: at most ${(queued / sockets / 1024).toFixed(0)} KiB each`,
      `all ${sockets} ended with the final state, by way of ${(versions / sockets / ROWS).toFixed(1)} of ${rounds} versions of each row`,
    ].join('\n')}\n`,
  )
} finally {
  program.kill('SIGKILL')
  await rm(folder, { recursive: true })
  await world.close()
  await stopBackend()
}
