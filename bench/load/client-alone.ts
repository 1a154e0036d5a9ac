/** A helper process with a {@link DatumClient} and no server: a socket that is none feeds it frames made beforehand. */
import { DatumClient, type WebSocketLike } from '../../client/index.ts'
import { VIEW_FRAME_CHARACTERS } from '../../src/wire/limits.ts'
import type { SubscribeMessage } from '../../src/wire/messages.ts'
import { answerCommands } from '../helper-process.ts'

/** The same work over and over, of which the quickest counts: no other process was in the way then, nor the compiler. */
const REPEATS = 5
const CHANGE_REPEATS = 5
/** How many changes one frame brings. */
const CHANGES_PER_FRAME = 20

const COLUMNS = ['id', 'n', 'org_id', 'owner', 'name', 'note', 'rev', 'at', 'geom']

class FakeSocket implements WebSocketLike {
  onopen: ((event: never) => void) | null = null
  onmessage: ((event: never) => void) | null = null
  onerror: ((event: never) => void) | null = null
  onclose: ((event: never) => void) | null = null
  static onSubscribe: (socket: FakeSocket, sub: string) => void = () => {}

  constructor() {
    queueMicrotask(() => this.onopen?.({} as never))
  }

  send(data: string): void {
    const message = JSON.parse(data) as SubscribeMessage
    if (message.type === 'subscribe') queueMicrotask(() => FakeSocket.onSubscribe(this, message.sub))
  }

  close(): void {}

  deliver(data: string): void {
    this.onmessage?.({ data } as never)
  }
}

answerCommands({
  async measure({ rows, changes }: { rows: number; changes: number }) {
    const times: Record<'fill' | 'fillFloor' | 'change' | 'changeFloor', number[]> = {
      ...{ fill: [], fillFloor: [], change: [], changeFloor: [] },
    }
    for (let repeat = 0; repeat < REPEATS; repeat++) {
      Bun.gc(true)
      const filling = framesOf(
        Array.from({ length: rows }, (_, n) => rowJson(n, 0)),
        VIEW_FRAME_CHARACTERS,
      )
      times.fillFloor.push(parseAll(filling))
      Bun.gc(true)
      const { client, socket, sub, elapsed } = await fill(filling)
      times.fill.push(elapsed)
      let seen = 0
      client.onChange(({ upserts }) => {
        seen += upserts.length
      })
      for (let again = 1; again <= CHANGE_REPEATS; again++) {
        const frames = changeFrames(rows, changes, repeat * CHANGE_REPEATS + again)
        times.changeFloor.push(parseAll(frames))
        const named = frames.map((frame) => frame.replace(SUB, sub))
        const began = performance.now()
        for (const frame of named) socket.deliver(frame)
        times.change.push(performance.now() - began)
        if (seen !== again * changes) throw new Error(`${seen} changes were told, not ${again * changes}`)
      }
      await client.disconnect()
    }
    return {
      fillMs: Math.min(...times.fill),
      fillFloorMs: Math.min(...times.fillFloor),
      changeMs: Math.min(...times.change),
      changeFloorMs: Math.min(...times.changeFloor),
    }
  },
})

async function fill(frames: readonly string[]) {
  let elapsed = 0
  let opened: { socket: FakeSocket; sub: string } | null = null
  FakeSocket.onSubscribe = (socket, sub) => {
    opened = { socket, sub }
    const named = frames.map((frame) => frame.replace(SUB, sub))
    socket.deliver(
      JSON.stringify({
        ...{ type: 'subscribed', sub, resumed: false },
        table: {
          ...{ name: 'features', idColumn: 'id', idType: 'uuid', geometryColumn: 'geom' },
          columns: COLUMNS.map((name) => ({ name, type: 'text', nullable: true, hasDefault: false })),
        },
      }),
    )
    const began = performance.now()
    for (const frame of named) socket.deliver(frame)
    elapsed = performance.now() - began
  }
  const client = await DatumClient.connect({
    ...{ serverUrl: 'ws://localhost/ws', bbox: [-180, -90, 180, 90], WebSocket: FakeSocket },
  })
  return { client, elapsed, ...opened! } as {
    client: DatumClient
    elapsed: number
    socket: FakeSocket
    sub: string
  }
}

/** Changes of rows all over the view, each with a `rev` that the view does not have yet. */
function changeFrames(rows: number, changes: number, rev: number): string[] {
  const changed = Array.from({ length: changes }, (_, i) => rowJson((i * 37) % rows, rev))
  const frames: string[] = []
  for (let at = 0; at < changes; at += CHANGES_PER_FRAME)
    frames.push(frameOf(changed.slice(at, at + CHANGES_PER_FRAME), ''))
  return frames
}

/** Stands for the subscription's name, which the client chooses. */
const SUB = 'SUB'

function frameOf(rows: readonly string[], rest: string): string {
  return `{"type":"view","sub":"${SUB}","rows":[${rows.join(',')}]${rest}}`
}

function framesOf(rows: readonly string[], bytes: number): string[] {
  const frames: string[] = []
  let run: string[] = []
  let length = 0
  for (const row of rows) {
    run.push(row)
    length += row.length
    if (length < bytes) continue
    frames.push(frameOf(run, ''))
    run = []
    length = 0
  }
  return [...frames, frameOf(run, ',"cursor":"e/1:1:","complete":0')]
}

function rowJson(n: number, rev: number): string {
  const hex = Bun.hash(String(n)).toString(16).padStart(16, '0')
  const id = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8000-${String(n).padStart(12, '0')}`
  return JSON.stringify({
    ...{ id, n, org_id: '00000000-0000-4000-8000-000000000001', owner: `user-${n}`, name: `Place ${n}` },
    ...{ note: 'A place with a note of about the length that notes have.', rev, at: 0 },
    geom: { type: 'Point', coordinates: [10 + (n % 997) / 997, 45 + ((n / 997) % 997) / 997] },
  })
}

function parseAll(frames: readonly string[]): number {
  const parsed: unknown[] = []
  const began = performance.now()
  for (const frame of frames) parsed.push(JSON.parse(frame))
  return performance.now() - began
}
