/** The documents get the figures of all rows or none, and nothing else of them is touched. */
import { describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { SECTIONS, withSection } from '../../bench/markdown.ts'
import type { Result } from '../../bench/row.ts'
import { ROWS } from '../../bench/rows.ts'

const root = join(import.meta.dir, '../..')
const figure = {
  of: 'of it',
  measured: 1,
  floor: Number.NaN,
  unit: 'ms',
  ratio: 1,
  ratioUnit: '×',
  mustBe: null,
  rounds: [-1, 2],
}
const everything: readonly Result[] = ROWS.map((row) => ({ row, figures: [figure] }))

describe('the figures', () => {
  for (const section of SECTIONS)
    test(`go between the markers of ${section.page}, and leave the rest`, async () => {
      const text = await Bun.file(join(root, 'docs', section.page)).text()
      const made = withSection(text, section, everything)
      const around = (page: string) => [page.split(section.begin)[0], page.split(section.end)[1]]
      expect(around(made)).toEqual(around(text))
      expect(made).toContain('| of it | 1 ms |')
      expect(withSection(made, section, everything)).toBe(made)
    })

  test('of every row are in exactly one page', () => {
    const [benchmarks = '', scaling = ''] = SECTIONS.map(({ content }) => content(everything))
    const named = ROWS.map(({ name }) => name).filter((name) => benchmarks.includes(`| ${name} | of it |`))
    expect(named).toEqual(ROWS.map(({ name }) => name).filter((name) => name !== 'processes'))
    expect(scaling.match(/of it/g)).toHaveLength(1)
  })
})

test('every row is told of in docs/BENCHMARKS.md', async () => {
  const text = await Bun.file(join(root, 'docs/BENCHMARKS.md')).text()
  const missing = ROWS.filter(({ name }) => !text.includes(`\n| \`${name}\` | `))
  expect(missing.map(({ name }) => name)).toEqual([])
})

test('a run of some rows, or a quick one, is not for the documents', async () => {
  for (const only of ['client', '--quick']) {
    const run = Bun.spawn([process.execPath, 'bench/main.ts', only, '--markdown'], {
      cwd: root,
      stderr: 'pipe',
    })
    expect(await run.exited).toBe(2)
    expect(await new Response(run.stderr).text()).toStartWith('bench: ')
  }
})
