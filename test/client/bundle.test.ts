/** What is promised about the client's file: one ES module, small, made of the client and the wire and nothing else. */
import { expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const ROOT = join(import.meta.dir, '../..')

test('the bundle is one file of at most 15 KB gzipped, without an import', async () => {
  const build = await Bun.build({
    entrypoints: [join(ROOT, 'client/index.ts')],
    target: 'browser',
    format: 'esm',
    minify: true,
  })
  expect(build.outputs).toHaveLength(1)
  const code = await build.outputs[0]!.text()
  expect(Bun.gzipSync(code).length).toBeLessThanOrEqual(15 * 1024)
  expect(code).not.toMatch(/\bimport\s*[({"']|\brequire\(|\bBun\.|\bprocess\.|\bBuffer\b/)
})

test('its modules import the client and the wire only', () => {
  for (const name of readdirSync(join(ROOT, 'client'))) {
    const source = readFileSync(join(ROOT, 'client', name), 'utf8')
    for (const [, path] of source.matchAll(/^(?:import|export)[^'\n]*?from '([^']+)'/gms))
      expect(path).toMatch(/^(\.\/|\.\.\/src\/wire\/)/)
  }
})
