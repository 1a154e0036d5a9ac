/** The examples of the documents compile, as a user's project would compile them. */
import { expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const ROOT = join(import.meta.dir, '../..')

test.each([
  ['docs/CLIENT.md', 3],
  ['docs/AUTHENTICATION.md', 1],
  ['README.md', 1],
])(
  'the examples of %s compile',
  async (document, least) => {
    const text = readFileSync(join(ROOT, document), 'utf8')
    const examples = [...text.matchAll(/^```ts\n(.*?)^```/gms)].map(([, code]) => code!)
    expect(examples.length).toBeGreaterThanOrEqual(least)
    const folder = mkdtempSync(join(tmpdir(), 'datum-docs-'))
    try {
      for (const [index, code] of examples.entries())
        writeFileSync(join(folder, `example-${index}.mts`), code)
      const compilerOptions = {
        target: 'ESNext',
        module: 'Preserve',
        moduleResolution: 'bundler',
        lib: ['ESNext', 'DOM', 'DOM.Iterable'],
        types: [],
        strict: true,
        noEmit: true,
        skipLibCheck: true,
        allowImportingTsExtensions: true,
        paths: { 'datum-server/client': [join(ROOT, 'client/index.ts')] },
      }
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.mts'] }))
      const tsc = Bun.spawn([join(ROOT, 'node_modules/.bin/tsc'), '-p', folder], {
        stdout: 'pipe',
        stderr: 'pipe',
      })
      expect(await new Response(tsc.stdout).text()).toBe('')
      expect(await tsc.exited).toBe(0)
    } finally {
      rmSync(folder, { recursive: true })
    }
  },
  60_000,
)
