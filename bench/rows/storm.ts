/** A reconnect storm: every socket is lost at once (a proxy restarts, say) and comes back with its token and its cursor. */
import { join } from 'node:path'
import { BOX, createDataset, tenantId } from '../dataset.ts'
import { figure, type Pair } from '../figure.ts'
import { type Helper, startHelper } from '../helper-process.ts'
import type { Row } from '../row.ts'
import { startServer } from '../server-process.ts'

const SOCKETS = 2_000
const TENANTS = 10
/** Rows that each of them holds. */
const VISIBLE = 100
/** Handshakes that the clients have under way at a time: below the backlog that Linux keeps for a listener. */
const AT_A_TIME = 500
const TIMES_MAX = 5

export const storm: Row = {
  name: 'storm',
  question: 'How long until 2,000 sockets that were lost at once are live again?',
  floor: 'As many bare handshakes, each with a token that is verified by the same library, and an answer.',
  mustBe: '≤ 5×',
  async run(world) {
    const sockets = world.size(SOCKETS, SOCKETS / 10)
    await using dataset = await createDataset(await world.cluster(), {
      rows: VISIBLE * TENANTS,
      tenants: TENANTS,
    })
    await using server = await startServer({ databaseUrl: dataset.appUrl })
    await using floorServer = startHelper(join(import.meta.dir, '../floors/token-handshake.ts'))
    await using clients = startHelper(join(import.meta.dir, '../load/sockets.ts'))
    await using floorClients = startHelper(join(import.meta.dir, '../load/sockets.ts'))
    const users = Array.from({ length: sockets }, (_, n) => ({
      sub: `user-${n}`,
      org_id: tenantId(n % TENANTS),
    }))
    const opening = { bbox: BOX, users, atATime: 50 }
    const floorUrl = await floorServer.call<string>('listen')
    await clients.call('open', { ...opening, url: server.socketUrl, remembers: true })
    await floorClients.call('open', { ...opening, url: floorUrl, onlyAuthenticate: true })
    await comeBack(floorClients)
    await comeBack(clients)
    const rounds = await world.inRounds(async (): Promise<Pair> => {
      const floorMs = await comeBack(floorClients)
      return [await comeBack(clients), floorMs]
    })
    return [
      figure({
        of: `${sockets.toLocaleString('en')} sockets`,
        unit: 'ms',
        rounds,
        mustBe: { atMost: TIMES_MAX },
      }),
    ]
  },
}

async function comeBack(clients: Helper): Promise<number> {
  await clients.call('drop')
  return clients.call<number>('reopen', { atATime: AT_A_TIME })
}
