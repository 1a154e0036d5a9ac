/** Memory of sockets that do nothing: each authenticated, each with a subscription that holds 1,000 rows. */
import { join } from 'node:path'
import { BOX, createDataset, tenantId } from '../dataset.ts'
import { plainFigure } from '../figure.ts'
import { startHelper } from '../helper-process.ts'
import { memoryOf } from '../process-cost.ts'
import type { Row } from '../row.ts'
import { startServer } from '../server-process.ts'

const SOCKETS = 10_000
const VISIBLE = 1_000
const TENANTS = 10
/** The rows that are held take the same memory, and ten million short ones are read in half the time. */
const WITHOUT = ['n', 'owner', 'name', 'note', 'rev', 'at']
const KIB_MAX = 32
/** Until the garbage of the snapshots is collected and given back. */
const IDLE_MS = 10_000
/** The server has seen some sockets before it is measured, so that its code and its pools do not count as theirs. */
const WARM_UP = 50

export const memory: Row = {
  name: 'memory',
  question: 'How much memory does an idle socket take that is authenticated and holds 1,000 rows?',
  floor: 'None: the growth of the server’s resident memory, divided by the sockets.',
  mustBe: '≤ 32 KiB each, 10,000 of them',
  async run(world) {
    const sockets = world.size(SOCKETS, SOCKETS / 20)
    await using dataset = await createDataset(await world.cluster(), {
      rows: VISIBLE * TENANTS,
      tenants: TENANTS,
      without: WITHOUT,
    })
    await using server = await startServer({ databaseUrl: dataset.appUrl })
    await using clients = startHelper(join(import.meta.dir, '../load/sockets.ts'))
    const usersTo = (count: number) =>
      Array.from({ length: count }, (_, n) => ({ sub: `user-${n}`, org_id: tenantId(n % TENANTS) }))
    const opening = { url: server.socketUrl, bbox: BOX, atATime: 8 }
    await clients.call('open', { ...opening, users: usersTo(WARM_UP) })
    await Bun.sleep(IDLE_MS)
    const before = await memoryOf(server.pid)
    const ms = await clients.call<number>('open', { ...opening, users: usersTo(sockets) })
    world.say(`${sockets} sockets opened in ${(ms / 1_000).toFixed(0)} s`)
    await Bun.sleep(IDLE_MS)
    const after = await memoryOf(server.pid)
    const kibEach = (after.resident - before.resident) / 1024 / sockets
    return [
      plainFigure(`${sockets.toLocaleString('en')} sockets`, 'KiB each', [kibEach], { atMost: KIB_MAX }),
    ]
  },
}
