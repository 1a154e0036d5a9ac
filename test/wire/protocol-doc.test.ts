/** Holds docs/PROTOCOL.md and src/wire together: every message, code and limit is there, and the examples are right. */
import { afterAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CloseCode } from '../../src/wire/close-codes.ts'
import { decodeClientMessage } from '../../src/wire/decode.ts'
import * as limits from '../../src/wire/limits.ts'

/** A safety net and not a measure: the compiler takes its time on a slow machine. */
setDefaultTimeout(60_000)

const root = join(import.meta.dir, '../..')
const doc = await Bun.file(join(root, 'docs/PROTOCOL.md')).text()
const types = await Bun.file(join(root, 'src/wire/messages.ts')).text()

interface Example {
  readonly text: string
  readonly value: { readonly type: string }
}

/** The JSON examples below one heading of the second level. */
function examplesBelow(heading: string): Example[] {
  const section = doc.split(/^## /m).find((part) => part.startsWith(heading)) ?? ''
  return [...section.matchAll(/```json\n([\s\S]*?)```/g)].map(([, text = '']) => ({
    text,
    value: JSON.parse(text),
  }))
}

const sides = {
  ClientMessage: examplesBelow('Client to server'),
  ServerMessage: examplesBelow('Server to client'),
}

/** The members of a union type in messages.ts, by their declaration's text. */
function membersOf(union: string): string[] {
  const declared = new RegExp(`export type ${union} =([^]*?)\\n\\n`).exec(`${types}\n\n`)?.[1] ?? ''
  return [...declared.matchAll(/\| (\w+)/g)].map(([, name = '']) => name)
}

/** The `type` and the fields of an interface in messages.ts. */
function interfaceOf(name: string): { type: string; fields: string[] } {
  const body = new RegExp(`export interface ${name} \\{([^]*?)\\n\\}`).exec(types)?.[1] ?? ''
  return {
    type: /readonly type: '(\w+)'/.exec(body)?.[1] ?? '',
    fields: [...body.matchAll(/^ {2}readonly (\w+)\??:/gm)].map(([, field = '']) => field),
  }
}

function literalsOf(union: string): string[] {
  const declared = new RegExp(`export type ${union} =([^]*?)\\n\\n`).exec(types)?.[1] ?? ''
  return [...declared.matchAll(/'(\w+)'/g)].map(([, literal = '']) => literal)
}

describe.each(['ClientMessage', 'ServerMessage'] as const)('%s', (union) => {
  for (const name of membersOf(union)) {
    const { type, fields } = interfaceOf(name)
    test(`${type} has an example of every field, and no example has another`, () => {
      const own = sides[union].filter(({ value }) => value.type === type)
      expect(own.length).toBeGreaterThan(0)
      const shown = new Set(own.flatMap(({ value }) => Object.keys(value)))
      expect([...shown].sort()).toEqual([...fields].sort())
    })
  }

  test('no example is of another type', () => {
    const known = membersOf(union).map((name) => interfaceOf(name).type)
    expect(known.length).toBeGreaterThan(4)
    for (const { value } of sides[union]) expect(known).toContain(value.type)
  })
})

test('the examples of the client’s messages are taken by the server’s decoder', () => {
  for (const { text, value } of sides.ClientMessage)
    expect(decodeClientMessage(text) as unknown).toEqual(value)
})

describe('the compiler', () => {
  const folders: string[] = []
  afterAll(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true }))))

  /** Type errors of the examples, each given the type that its section says. */
  async function typeErrors(
    examples: readonly (readonly [union: string, text: string, type: string])[],
  ): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), 'datum-protocol-'))
    folders.push(folder)
    const source = [
      `import type { ClientMessage, ServerMessage } from '${join(root, 'src/wire/messages.ts')}'`,
      ...examples.map(
        ([union, text, type], n) => `export const e${n}: Extract<${union}, { type: '${type}' }> = ${text}`,
      ),
    ]
    await Bun.write(join(folder, 'examples.ts'), source.join('\n'))
    const flags =
      '--noEmit --strict --exactOptionalPropertyTypes --allowImportingTsExtensions --module preserve --target esnext'
    const tsc = Bun.spawn([join(root, 'node_modules/.bin/tsc'), ...flags.split(' '), 'examples.ts'], {
      cwd: folder,
      stdout: 'pipe',
      stderr: 'pipe',
    })
    const output = await new Response(tsc.stdout).text()
    expect((await tsc.exited) === 0).toBe(output === '')
    return output
  }

  test('takes every example as the type of its section', async () => {
    const all = (['ClientMessage', 'ServerMessage'] as const).flatMap((union) =>
      sides[union].map(({ text, value }) => [union, text, value.type] as const),
    )
    expect(await typeErrors(all)).toBe('')
  })

  test('would refuse a missing field and one too many', async () => {
    const errors = await typeErrors([
      ['ClientMessage', '{ "type": "auth" }', 'auth'],
      ['ServerMessage', '{ "type": "pong", "cursors": {}, "more": 1 }', 'pong'],
    ])
    expect(errors).toContain('token')
    expect(errors).toContain('more')
  })
})

test('every close code is explained, under its name', () => {
  for (const [name, code] of Object.entries(CloseCode)) expect(doc).toContain(`| ${code} | \`${name}\` |`)
})

test('every reason to end a subscription and to reject an edit is explained', () => {
  const codes = [...literalsOf('EndCode'), ...literalsOf('RejectionCode')]
  expect(codes.length).toBeGreaterThan(15)
  for (const code of codes) expect(doc).toContain(`\n| \`${code}\` | `)
})

test('every limit is there with its value', () => {
  for (const [name, value] of Object.entries(limits))
    expect(doc).toContain(typeof value === 'number' ? `| \`${name}\` | ${value} |` : `\`${value}\``)
})
