/** Holds docs/CONFIGURATION.md to the code: its file is taken as it stands, and it leaves out no key. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadConfig } from '../../src/config/load.ts'
import { fileSchema, keysAt } from '../../src/config/schema.ts'
import { publicPem, rsaPair } from '../auth/key-material.ts'
import { blocksOf } from '../support/guide.ts'

const document = await Bun.file(join(import.meta.dir, '../../docs/CONFIGURATION.md')).text()
const [example = ''] = blocksOf(document)
  .map(({ code }) => code)
  .filter((code) => code.startsWith('# datum.yaml'))

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'datum-docs-'))
})
afterAll(() => rm(folder, { recursive: true }))

test('the file with everything is taken', async () => {
  const pem = join(folder, 'jwt.pub')
  await writeFile(pem, publicPem(rsaPair(), 'SPKI'))
  await writeFile(join(folder, 'tables.sql'), 'select 1')
  await writeFile(join(folder, 'datum.yaml'), example.replace('/run/secrets/jwt.pub', pem))
  const { config, warnings } = await loadConfig({ flags: {}, environment: {}, folder })
  expect(warnings).toEqual([])
  expect(config.tables.map(({ name }) => name)).toEqual(['features', 'parcels', 'notes'])
  expect(config.auth?.enforceExpiry).toBe(true)
  expect(config.trustedProxies).toEqual(['127.0.0.1', '10.0.0.0/8'])
  expect(config.embedded.initSql).toBe('select 1')
})

test('every key is in the file with everything, and in a table', () => {
  // `table` and `tables` exclude each other.
  const top = Object.keys(fileSchema.shape).filter((key) => key !== 'table')
  const inner = ['tables', 'auth', 'embedded'].flatMap((section) => keysAt([section]))
  const absent = [...top, ...inner].filter((key) => !new RegExp(`^[ -]*${key}:`, 'm').test(example))
  expect(absent).toEqual([])
  const untold = [...Object.keys(fileSchema.shape), ...inner].filter(
    (key) => !new RegExp(`^\\| \`(?:embedded\\.)?${key}(?:\`|\\.)`, 'm').test(document),
  )
  expect(untold).toEqual([])
})
