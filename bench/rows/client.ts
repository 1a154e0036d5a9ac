/** The client: what it does with the frames of a view, and how large it is. */
import { join } from 'node:path'
import { figure, plainFigure } from '../figure.ts'
import { startHelper } from '../helper-process.ts'
import type { Row } from '../row.ts'

const ROWS = 50_000
const CHANGES = 1_000
const TIMES_MAX = 2
const BUNDLE_KIB_MAX = 15

interface ClientTimes {
  readonly fillMs: number
  readonly fillFloorMs: number
  readonly changeMs: number
  readonly changeFloorMs: number
}

export const client: Row = {
  name: 'client',
  question: 'What does the client add to parsing the JSON that it gets?',
  floor: 'JSON.parse of the same frames, and nothing done with them.',
  mustBe: '≤ 2× for 50,000 rows into the view and for 1,000 changes; the bundle ≤ 15 KiB gzipped',
  async run(world) {
    const rows = world.size(ROWS, ROWS / 10)
    const rounds = await world.inRounds(async () => {
      // A new process each time, as a page that was just loaded.
      await using helper = startHelper(join(import.meta.dir, '../load/client-alone.ts'))
      return await helper.call<ClientTimes>('measure', { rows, changes: CHANGES })
    })
    const built = await Bun.build({
      entrypoints: [join(import.meta.dir, '../../client/index.ts')],
      target: 'browser',
      minify: true,
    })
    const bytes = Bun.gzipSync(new Uint8Array(await built.outputs[0]!.arrayBuffer())).length
    const mustBe = { atMost: TIMES_MAX }
    return [
      figure({
        of: `${rows.toLocaleString('en')} rows into the view`,
        unit: 'ms',
        rounds: rounds.map(({ fillMs, fillFloorMs }) => [fillMs, fillFloorMs]),
        mustBe,
      }),
      figure({
        of: `${CHANGES.toLocaleString('en')} changes applied`,
        unit: 'ms',
        rounds: rounds.map(({ changeMs, changeFloorMs }) => [changeMs, changeFloorMs]),
        mustBe,
      }),
      plainFigure('bundle, gzipped', 'KiB', [bytes / 1024], { atMost: BUNDLE_KIB_MAX }),
    ]
  },
}
