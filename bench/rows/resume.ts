/** Coming back: what it takes to bring a view up to date that was away while 1 % of its rows changed. */
import { join } from 'node:path'
import type { Bbox } from '../../src/wire/messages.ts'
import { BOX, createDataset, type Dataset, tenantId } from '../dataset.ts'
import { figure, type Pair, plainFigure } from '../figure.ts'
import { startHelper } from '../helper-process.ts'
import type { Figure, Row } from '../row.ts'
import { startServer } from '../server-process.ts'
import type { World } from '../world.ts'
import { SNAPSHOT_SIZES } from './snapshot.ts'

const TENANTS = 2
const CHANGED = 0.01
const PERCENT_MAX = 5
/** Where nothing is: what opening a view takes before there is a row in it. */
const EMPTY_BOX = [100, 10, 101, 11] as const

interface Traffic {
  readonly received: number
  readonly sent: number
  readonly held: number
}

export const resume: Row = {
  name: 'resume',
  question: 'What does it cost to come back after 1 % of the rows changed?',
  floor:
    'The snapshot of the same view, by the same client. How long it was away makes no difference: nothing is kept for it but the change log.',
  mustBe: 'bytes and time ≤ 5 % of the snapshot’s',
  async run(world) {
    const figures: Figure[] = []
    for (const size of SNAPSHOT_SIZES) {
      const visible = world.size(size, size / 10)
      await using dataset = await createDataset(await world.cluster(), {
        rows: visible * TENANTS,
        tenants: TENANTS,
      })
      const rounds = await measure(world, dataset, visible)
      const percent = (what: string, unit: string, pairs: readonly Pair[]) =>
        figure({
          of: `${visible.toLocaleString('en')} rows: ${what}`,
          unit,
          rounds: pairs,
          as: 'percent',
          mustBe: { atMost: PERCENT_MAX },
          growth: { line: what, size: visible },
        })
      figures.push(
        percent(
          'time',
          'ms',
          rounds.map(({ time }) => time),
        ),
        plainFigure(
          `${visible.toLocaleString('en')} rows: opening a view of nothing`,
          'ms',
          rounds.map(({ emptyMs }) => emptyMs),
          null,
        ),
        percent(
          'KiB from the server',
          'KiB',
          rounds.map(({ received }) => received),
        ),
        percent(
          'KiB both ways',
          'KiB',
          rounds.map(({ both }) => both),
        ),
      )
    }
    return figures
  },
}

async function measure(
  world: World,
  { appUrl, admin }: Dataset,
  visible: number,
): Promise<{ time: Pair; emptyMs: number; received: Pair; both: Pair }[]> {
  await using server = await startServer({ databaseUrl: appUrl })
  const user = { sub: 'a', org_id: tenantId(1) }
  const round = async (n: number) => {
    await using client = startHelper(join(import.meta.dir, '../load/sockets.ts'))
    // One connection of before, so that the client's code is compiled.
    const open = (bbox: Bbox = BOX) =>
      client.call<number>('open', {
        url: server.socketUrl,
        bbox,
        users: [user],
        atATime: 1,
        remembers: true,
      })
    await open()
    await client.call('close')
    const emptyMs = await open(EMPTY_BOX)
    await client.call('close')
    const snapshotMs = await open()
    const first = await client.call<Traffic>('traffic')
    await client.call('drop')
    const changed = Math.round(visible * CHANGED)
    await admin`update features set rev = rev + 1 where n % ${TENANTS} = 1 and n / ${TENANTS} % ${100} = ${n % 100}`
    const resumeMs = await client.call<number>('reopen', { atATime: 1 })
    const again = await client.call<Traffic>('traffic')
    if (again.held !== visible)
      throw new Error(`it holds ${again.held} rows, not ${visible} (${changed} changed)`)
    const kib = (bytes: number) => bytes / 1024
    return {
      time: [resumeMs, snapshotMs] as const,
      emptyMs,
      received: [kib(again.received), kib(first.received)] as const,
      both: [kib(again.received + again.sent), kib(first.received + first.sent)] as const,
    }
  }
  await round(99)
  return await world.inRounds(round)
}
