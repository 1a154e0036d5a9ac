/**
 * datum.yaml as a value with places: what it says, where each key stands, and what is wrong with its form. `load.ts`
 * asks; `schema.ts` judges the content.
 */
import { relative } from 'node:path'
import {
  type Document,
  type ErrorCode,
  isCollection,
  isMap,
  isPair,
  isScalar,
  LineCounter,
  type Node,
  parseDocument,
  visit,
} from 'yaml'
import type { Problem } from './problem.ts'
import { fileSchema } from './schema.ts'
import { explainIssue, isSecretKey } from './schema-words.ts'
import { readSmallFile } from './small-file.ts'

export interface YamlFile {
  /** The keys at the top as parsed, not validated. Empty if the file is, or is no map. */
  readonly content: Readonly<Record<string, unknown>>
  /** `datum.yaml:3:5` of the key at `path`, or of the nearest thing above it that exists. */
  where(path: readonly PropertyKey[]): string
  /** Everything about the file that can be judged without looking outside. */
  readonly problems: readonly Problem[]
}

/**
 * Reads and judges a file. Null if there is none.
 * @throws what `readSmallFile` throws for other reasons than the file's absence.
 */
export async function readYamlFile(path: string, folder: string): Promise<YamlFile | null> {
  let bytes: Uint8Array
  try {
    bytes = await readSmallFile(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
  const shown = relative(folder, path)
  return parseYamlFile(new TextDecoder().decode(bytes), shown.startsWith('..') ? path : shown)
}

/** Judges the text of a file that is shown to the operator as `name`. */
function parseYamlFile(text: string, name: string): YamlFile {
  const lines = new LineCounter()
  // Pretty errors quote the line, which may hold a secret. Keys that are no text would be printed as a warning.
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true })
  if (isTooDeep(document.contents)) return tooDeep(name)
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset)
    return `${name}:${Math.max(line, 1)}:${Math.max(col, 1)}`
  }

  const found = problemsOfForm(document)
  // What stands after a syntax error cannot be judged: a key may have ended up in another place.
  const readable = document.errors.every(({ code }) => code === 'DUPLICATE_KEY')
  const value = readable ? toValue(document) : null
  if (value === undefined && found.length === 0) {
    found.push({ offset: 0, message: 'the aliases (*) of this file stand for too much' })
  }
  const content = isMapValue(value) ? value : {}
  if (value != null && !isMapValue(value)) {
    found.push({ offset: 0, message: 'the file must hold keys with values, like "port: 8080"' })
  }
  const issues = value === undefined ? [] : (fileSchema.safeParse(content).error?.issues ?? [])
  for (const { path, message } of issues.flatMap((issue) => explainIssue(issue, content))) {
    found.push({ offset: offsetOf(document.contents, path), message })
  }
  found.sort((a, b) => a.offset - b.offset)
  return {
    content,
    where: (path) => at(offsetOf(document.contents, path)),
    problems: found.map(({ offset, message }) => ({ where: at(offset), message })),
  }
}

/** Levels that a file may have: it has four, and what looks at each node takes its time with thousands. */
const NESTING_MAX = 32

function isTooDeep(root: unknown): boolean {
  let level: unknown[] = [root]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > NESTING_MAX) return true
    level = level.flatMap((node) => {
      const items: readonly unknown[] = isCollection(node) ? node.items : []
      return items.flatMap((item) => (isPair(item) ? [item.key, item.value] : [item]))
    })
  }
  return false
}

function tooDeep(name: string): YamlFile {
  const place = `${name}:1:1`
  const message = `this is nested more than ${NESTING_MAX} levels deep`
  return { content: {}, where: () => place, problems: [{ where: place, message }] }
}

interface Finding {
  readonly offset: number
  readonly message: string
}

/** What can be said of a document without knowing which keys there are. */
function problemsOfForm(document: Document): Finding[] {
  const found: Finding[] = []
  visit(document, {
    Pair(_, pair) {
      if (!isScalar(pair.key) || !isSecretKey(String(pair.key.value))) return
      found.push({ offset: pair.key.range?.[0] ?? 0, message: SECRET_IN_FILE })
    },
    Alias(_, alias) {
      if (alias.resolve(document) !== undefined) return
      found.push({ offset: alias.range?.[0] ?? 0, message: 'this alias refers to nothing' })
    },
  })
  for (const error of document.errors) {
    found.push({ offset: error.pos[0], message: SYNTAX_WORDS[error.code] ?? 'this is not valid YAML' })
  }
  return found
}

const SECRET_IN_FILE =
  'the JWT secret must not be in this file: files like this get committed to git, and whoever reads the secret can ' +
  'make tokens for anybody. Remove the key and set the environment variable JWT_SECRET; if the file was ever shared, ' +
  'use a new secret.'

const SYNTAX_WORDS: Partial<Record<ErrorCode, string>> = {
  DUPLICATE_KEY: 'this key is here twice; leave one',
  BAD_INDENT: 'the indentation does not fit what stands above (or a bracket is not closed)',
  TAB_AS_INDENT: 'YAML is indented with spaces, not with tabs',
  MULTIPLE_DOCS: 'a second document begins here ("---"); the file must hold one',
  MISSING_CHAR: 'a closing quote, bracket, colon or comma is missing',
  NON_STRING_KEY: 'a key must be plain text',
}

/** The content as JavaScript has it; undefined if it cannot be had, because its aliases lead nowhere or multiply. */
function toValue(document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 })
  } catch {
    return undefined
  }
}

const isMapValue = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Where the key at `path` begins; of an entry of a list, the entry. */
function offsetOf(root: Node | null, path: readonly PropertyKey[]): number {
  let node: unknown = root
  let offset = root?.range?.[0] ?? 0
  for (const key of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(key))
      if (pair === undefined) break
      offset = (pair.key as Node).range?.[0] ?? offset
      node = pair.value
    } else {
      node = (node as { items?: readonly unknown[] } | null)?.items?.[Number(key)]
      if (node === undefined) break
      offset = (node as Node | null)?.range?.[0] ?? offset
    }
  }
  return offset
}
