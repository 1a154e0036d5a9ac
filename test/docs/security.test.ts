/** Holds docs/SECURITY.md to the code: the tests that its claims name exist, and no function is left out. */
import { describe, expect, test } from 'bun:test'
import { join } from 'node:path'

const root = join(import.meta.dir, '../..')
const document = await Bun.file(join(root, 'docs/SECURITY.md')).text()
const flat = document.replaceAll(/\s+/g, ' ')

/** `path`: "title", "title" — or a path alone. */
const named = [...flat.matchAll(/`(test\/[\w./-]+)`((?:[:,] "[^"]+")*)/g)].map(
  ([, path = '', titles = '']) => ({
    path,
    titles: [...titles.matchAll(/"([^"]+)"/g)].map(([, title = '']) => title),
  }),
)

describe('the tests that it names', () => {
  test('are many', () => {
    expect(named.length).toBeGreaterThan(30)
    expect(named.flatMap(({ titles }) => titles).length).toBeGreaterThan(30)
  })

  for (const { path, titles } of named)
    test(`${path}${titles.map((title) => `, ${title}`).join('')}`, async () => {
      const file = Bun.file(join(root, path))
      expect(await file.exists()).toBe(true)
      const source = await file.text()
      for (const title of titles)
        expect(source).toMatch(new RegExp(`^\\s*\\w+\\(\\s*'${RegExp.escape(title)}'`, 'm'))
    })
})

test('every claim with a title in quotes says where its test is', () => {
  const titles = new Set(named.flatMap((one) => one.titles))
  const numbered = [...flat.matchAll(/"(I\d+: [^"]+)"/g)].map(([, title = '']) => title)
  expect(numbered.filter((title) => !titles.has(title))).toEqual([])
})

test('every function that setup installs is told of', async () => {
  const schema = await Bun.file(join(root, 'src/db/sql/schema.sql')).text()
  const functions = [...schema.matchAll(/^create or replace function datum\.(\w+)/gm)].map(
    ([, name = '']) => name,
  )
  expect(functions.length).toBeGreaterThan(8)
  // `ring` is called by the triggers only.
  const told = (name: string) => new RegExp(`\`(?:datum\\.)?${name}\``).test(document)
  expect(functions.filter((name) => name !== 'ring' && !told(name))).toEqual([])
  const definers = [
    ...schema.matchAll(/^create or replace function datum\.(\w+)(?:(?!^create )[\s\S])*?security definer/gm),
  ]
  const table = /\| function \| runs as[\s\S]*?\n\n/.exec(document)?.[0] ?? ''
  expect(definers.map(([, name = '']) => name).filter((name) => !table.includes(`\`${name}\``))).toEqual([])
})
