/**
 * `bun run mutations [--torture] [FILTER…]`: breaks the invariants on purpose, one mutation of `list.ts` at a time, and sees
 * whether the tests named there notice. Exits 1 if a mutation survives, does not apply, or its tests fail without it.
 * With `--torture` a short torture takes the place of the tests, to see what it is worth; it need not notice all.
 */
import { findPostgresBinaries, startCluster } from '../support/postgres.ts'
import { MUTATIONS } from './list.ts'
import type { Mutation } from './mutation.ts'
import { Tree } from './tree.ts'

/** `I3` is the third invariant and not the thirtieth; anything else is a part of a file's name or of the description. */
const filters = process.argv.slice(2).filter((argument) => argument !== '--torture')
const byTorture = process.argv.includes('--torture')
const isWanted = ({ invariant, file, breaks }: Mutation) =>
  filters.length === 0 ||
  filters.some((filter) => invariant === filter || `${file} ${breaks}`.includes(filter))
const wanted = MUTATIONS.filter(isWanted)
if (wanted.length === 0) {
  console.error(`mutations: none is called ${filters.join(' or ')}. Name an invariant (I3), a file or words.`)
  process.exit(2)
}
const binaries = await findPostgresBinaries()
if (binaries === null) {
  console.error('mutations: the tests need a PostgreSQL with PostGIS, and there is none here.')
  process.exit(2)
}

const began = Date.now()
// One cluster for all runs, which would each start one of their own.
const cluster = await startCluster(binaries)
let problems = 0
try {
  await using tree = await Tree.copy(cluster.adminUrl('postgres'))
  if (byTorture) await torture(tree, wanted)
  else problems = (await soundTests(tree, wanted)) ? await survivors(tree, wanted) : 1
} finally {
  await cluster.stop()
}
process.exit(problems === 0 ? 0 : 1)

/** Tests that fail by themselves would kill every mutation. */
async function soundTests(tree: Tree, mutations: readonly Mutation[]): Promise<boolean> {
  const files = [...new Set(mutations.flatMap(({ tests }) => tests))].sort()
  console.log(`${files.length} test files without a mutation …`)
  const run = await tree.test(files)
  if (!run.passed) console.log(`${whyOf(run.output)}\nThe tests fail as it is: ${run.failed.join('; ')}`)
  return run.passed
}

async function survivors(tree: Tree, mutations: readonly Mutation[]): Promise<number> {
  const survived: Mutation[] = []
  for (const mutation of mutations) {
    const { invariant, file, breaks } = mutation
    const start = Date.now()
    const options = ['--bail', ...(mutation.only === undefined ? [] : ['-t', mutation.only])]
    const { failed, output } = await tree.mutated(mutation, () => tree.test(mutation.tests, options))
    const seconds = Math.round((Date.now() - start) / 1_000)
    const isKilled = failed.length > 0
    console.log(`${isKilled ? 'killed  ' : 'SURVIVED'} ${invariant} ${breaks} (${file}, ${seconds} s)`)
    if (isKilled) console.log(`         by "${failed[0]}"`)
    else {
      survived.push(mutation)
      console.log(output.slice(-500))
    }
  }
  const minutes = ((Date.now() - began) / 60_000).toFixed(1)
  console.log(
    `\n${mutations.length} mutations, ${survived.length} survived, ${minutes} minutes with the run before`,
  )
  return survived.length
}

async function torture(tree: Tree, mutations: readonly Mutation[]): Promise<void> {
  let noticed = 0
  for (const mutation of mutations) {
    const broken = await tree.mutated(mutation, () => tree.torture())
    if (broken !== null) noticed++
    console.log(`${broken === null ? 'not noticed' : 'noticed    '} ${mutation.invariant} ${mutation.breaks}`)
    if (broken !== null) console.log(`            by "${broken.slice(0, 200)}"`)
  }
  console.log(`\n${noticed} of ${mutations.length} noticed by a short torture`)
}

/** What the tests said before the first of them failed. */
function whyOf(output: string): string {
  const at = output.indexOf('(fail)')
  return output.slice(Math.max(0, at - 4_000), at + 200)
}
