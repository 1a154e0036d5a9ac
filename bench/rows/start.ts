/** The start: from the compiled binary to ready, on a database that is set up. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createDataset } from '../dataset.ts'
import { figure, type Pair } from '../figure.ts'
import type { Row } from '../row.ts'
import { startServer } from '../server-process.ts'
import { median } from '../statistics.ts'

const ROOT = join(import.meta.dir, '../..')
const MS_MAX = 250
/** Starts of each in a round. */
const STARTS = 5

export const start: Row = {
  name: 'start',
  question: 'How long does the compiled binary take until it is ready?',
  floor: 'A compiled Bun binary of one line, from its start to that line on standard output.',
  mustBe: '≤ 250 ms more',
  async run(world) {
    const folder = await mkdtemp(join(tmpdir(), 'datum-bench-start-'))
    try {
      world.say('compiling')
      const built = Bun.spawn([process.execPath, 'build.ts', '--current'], {
        cwd: ROOT,
        stdout: 'pipe',
        stderr: 'inherit',
      })
      const said = await new Response(built.stdout).text()
      const name = /dist\/(datum-server-\S+)/.exec(said)?.[1]
      if ((await built.exited) !== 0 || name === undefined) throw new Error('the binary could not be built')
      const empty = await compileEmpty(folder)
      await using dataset = await createDataset(await world.cluster(), { rows: 1_000, tenants: 1 })
      const startOnce = async () => {
        const began = performance.now()
        await using _ = await startServer({
          databaseUrl: dataset.appUrl,
          program: [join(ROOT, 'dist', name)],
        })
        return performance.now() - began
      }
      await startOnce()
      await runEmpty(empty)
      const rounds = await world.inRounds(async (): Promise<Pair> => {
        const times: number[] = []
        const floors: number[] = []
        for (let n = 0; n < STARTS; n++) {
          floors.push(await runEmpty(empty))
          times.push(await startOnce())
        }
        return [median(times), median(floors)]
      })
      return [figure({ of: 'to ready', unit: 'ms', rounds, as: 'difference', mustBe: { atMost: MS_MAX } })]
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  },
}

async function compileEmpty(folder: string): Promise<string> {
  const source = join(folder, 'empty.ts')
  await Bun.write(source, `console.log('ready')\n`)
  const outfile = join(folder, 'empty')
  await Bun.build({ entrypoints: [source], compile: { outfile } })
  return outfile
}

async function runEmpty(program: string): Promise<number> {
  const began = performance.now()
  const child = Bun.spawn([program], { stdout: 'pipe', env: { PATH: process.env.PATH ?? '' } })
  await child.stdout.getReader().read()
  const elapsed = performance.now() - began
  await child.exited
  return elapsed
}
