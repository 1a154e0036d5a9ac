/** Holds docs/ARCHITECTURE.md to the code: its map is complete, imports point its one way, the tests it names exist. */
import { describe, expect, test } from 'bun:test'
import { dirname, join, normalize } from 'node:path'

const root = join(import.meta.dir, '../..')
const document = await Bun.file(join(root, 'docs/ARCHITECTURE.md')).text()
const map = /^```\n(src\/cli\.ts[\s\S]*?)^```$/m.exec(document)?.[1] ?? ''

async function filesOf(pattern: string): Promise<string[]> {
  return (await Array.fromAsync(new Bun.Glob(pattern).scan(root))).sort()
}

describe('the map of the code', () => {
  /** Paths on a line after the first may leave out its folder. */
  const named = map.split('\n').flatMap((line) => {
    const [first = ''] = line.split(/\s/)
    return [...line.matchAll(/[\w./-]+\.(?:ts|sql)\b/g)].map(([path]) =>
      path.includes('/') ? path : join(dirname(first), path),
    )
  })

  test('names every module of the server and the client', async () => {
    const modules = [...(await filesOf('src/**/*.{ts,sql}')), ...(await filesOf('client/*.ts'))]
    expect(modules.length).toBeGreaterThan(80)
    const missing = modules.filter((path) => !path.endsWith('.d.ts') && !named.includes(path))
    expect(missing).toEqual([])
  })

  test('names nothing that is not there', async () => {
    const absent: string[] = []
    for (const path of named) if (!(await Bun.file(join(root, path)).exists())) absent.push(path)
    expect(absent).toEqual([])
  })
})

test('imports point one way', async () => {
  const rank = ['wire', 'config', 'auth', 'db', 'sync', 'session', 'server', 'cli']
  // Words, numbers and errors for people are for everybody.
  const forAll = /^src\/(?:observe\/|operator-error\.ts)/
  const layerOf = (path: string): number => {
    const [, layer = ''] = /^src\/(\w+)/.exec(path) ?? []
    const found = rank.indexOf(layer === 'http' ? 'server' : layer)
    // A file without a place could import, or be imported by, anything.
    if (found === -1) throw new Error(`${path} is in no layer`)
    return found
  }
  const wrong: string[] = []
  for (const path of await filesOf('{src,client}/**/*.ts')) {
    const text = await Bun.file(join(root, path)).text()
    for (const [, target = ''] of text.matchAll(/(?:from |import\()'(\.[^']+)'/g)) {
      const imported = normalize(join(dirname(path), target))
      if (forAll.test(path) || forAll.test(imported)) continue
      const isRight = path.startsWith('client/')
        ? imported.startsWith('client/') || imported.startsWith('src/wire/')
        : !imported.startsWith('src/') || layerOf(imported) <= layerOf(path)
      if (!isRight) wrong.push(`${path} imports ${imported}`)
    }
  }
  expect(wrong).toEqual([])
})

describe('the invariants', () => {
  const section = /^## Invariants$[\s\S]*?(?=^## )/m.exec(document)?.[0] ?? ''
  const invariants = section.split(/^(?=\*\*\d+\. )/m).slice(1)

  test('are twelve', () => expect(invariants).toHaveLength(12))

  for (const [index, text] of invariants.entries())
    test(`${index + 1}: the tests that it names are there, and some carry its number`, async () => {
      const flat = text.replaceAll(/\s+/g, ' ')
      const files = [...flat.matchAll(/`(test\/[\w./-]+)`/g)].map(([, path = '']) => path)
      let source = ''
      for (const path of files) {
        const pattern = path.endsWith('/') ? `${path}*.test.ts` : path
        const found = await filesOf(pattern)
        expect({ path, exists: found.length > 0 }).toEqual({ path, exists: true })
        for (const file of found) source += await Bun.file(join(root, file)).text()
      }
      for (const [, title] of flat.matchAll(/"(I\d+: [^"]+)"/g)) expect(source).toContain(`'${title}'`)
      expect(source).toMatch(new RegExp(`['\`]I${index + 1}: `))
    })
})
