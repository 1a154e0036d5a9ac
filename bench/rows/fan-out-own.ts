/** Fan-out where every user is a class of its own: each change is decided anew for every socket. */
import { join } from 'node:path'
import { BOX, createDataset, type Dataset, tenantId } from '../dataset.ts'
import { figure, plainFigure } from '../figure.ts'
import { startHelper } from '../helper-process.ts'
import type { Traffic } from '../load/sockets.ts'
import type { Burst } from '../load/writer.ts'
import type { Row } from '../row.ts'
import { startServer } from '../server-process.ts'
import type { World } from '../world.ts'

/**
 * A row is its owner's, who is named before the slash of `sub`: what comes after it makes every user a class of its
 * own, and yet each has something to wait for. No index helps a policy that is asked about one row.
 */
const POLICY = `owner = split_part(current_setting('datum.sub', true), '/', 1)`
/** Each decision of the rival's is a transaction, so some thousands are enough to know. */
const RIVAL_DECISIONS = 2_000
const SIZES = [500, 1_000, 5_000]
/** Each size is given the same table and the same updates, so that a class costs the same everywhere. */
const ROWS = 5_000
const UPDATES = 300
/** After a burst that lasted, the feed leaves time to the application, on purpose. A round begins when that is over. */
const QUIET_MS = 1_000
const TIMES_MIN = 15

export const fanOutOwn: Row = {
  name: 'fan-out-own',
  question:
    'How many visibility decisions a second, where the policy reads `sub`, so that every user is a class?',
  floor:
    'The rival: a transaction for each subscriber and change (BEGIN, set the claims, SELECT the row, COMMIT), on as many connections as serve it best.',
  mustBe: '≥ 15× the rival at 1,000 sockets; at 5,000 no slower than at 500',
  async run(world) {
    const perSecond = new Map<number, number[]>()
    const rival: number[] = []
    for (const size of SIZES) {
      const sockets = world.size(size, size / 10)
      await using dataset = await createDataset(await world.cluster(), {
        rows: ROWS,
        tenants: 1,
        policy: POLICY,
      })
      perSecond.set(size, await decisionsPerSecond(world, dataset, sockets, size === 1_000 ? rival : null))
      world.say(`${size} sockets: ${perSecond.get(size)!.map(Math.round)} decisions/s`)
    }
    const at = (size: number) => perSecond.get(size)!
    return [
      figure({
        of: '1,000 sockets',
        unit: 'decisions/s',
        rounds: at(1_000).map((one, n) => [one, rival[n]!]),
        mustBe: { atLeast: TIMES_MIN },
      }),
      figure({
        of: '5,000 sockets against 500',
        unit: 'decisions/s',
        rounds: at(5_000).map((one, n) => [one, at(500)[n]!]),
        mustBe: { atLeast: 1 },
      }),
      ...[500].map((size) => plainFigure(`${size} sockets`, 'decisions/s', at(size), null)),
    ]
  },
}

/** `rival`: where to put what the rival reaches, measured in turns with datum. */
async function decisionsPerSecond(
  world: World,
  dataset: Dataset,
  sockets: number,
  rival: number[] | null,
): Promise<number[]> {
  await using server = await startServer({ databaseUrl: dataset.appUrl })
  await using clients = startHelper(join(import.meta.dir, '../load/sockets.ts'))
  await using writer = startHelper(join(import.meta.dir, '../load/writer.ts'))
  await using transactions = startHelper(join(import.meta.dir, '../floors/transaction-each.ts'))
  await writer.call('connect', { url: dataset.adminUrl })
  const updates = world.size(UPDATES, UPDATES / 10)
  const users = Array.from({ length: sockets }, (_, n) => ({
    sub: `user-${n % updates}/${n}`,
    org_id: tenantId(0),
  }))
  await clients.call('open', { url: server.socketUrl, bbox: BOX, users, atATime: 50 })
  let from = 0
  const round = async () => {
    await Bun.sleep(QUIET_MS)
    // Each changes a row of another owner, and every user is asked about all of them.
    const rows = Array.from({ length: updates }, (_, i) => i)
    await clients.call('collect', { from, count: updates, groups: updates })
    const { began } = await writer.call<Burst>('burst', { rows, from })
    const { at } = await clients.call<Traffic>('collected')
    from += updates
    return (updates * sockets) / ((at - began) / 1_000)
  }
  await round()
  return await world.inRounds(async () => {
    rival?.push(
      await transactions.call<number>('perSecond', {
        url: dataset.appUrl,
        decisions: RIVAL_DECISIONS,
        sockets,
      }),
    )
    return round()
  })
}
