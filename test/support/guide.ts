/**
 * The authentication guide as tests use it: its code blocks, word for word, so that what people copy is what was tried.
 */
import { join } from 'node:path'

const text = await Bun.file(join(import.meta.dir, '../../docs/AUTHENTICATION.md')).text()

interface CodeBlock {
  readonly language: string
  readonly code: string
}

/** The code blocks of a document in Markdown, in its order. */
export function blocksOf(markdown: string): CodeBlock[] {
  return [...markdown.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(([, language = '', code = '']) => ({
    language,
    code,
  }))
}

export const guideBlocks: readonly CodeBlock[] = blocksOf(text)

/** The one block of the language that holds these words. Throws if there is none, or more than one. */
export function guideBlock(language: string, words: string): string {
  const found = guideBlocks.filter((block) => block.language === language && block.code.includes(words))
  if (found.length !== 1)
    throw new Error(`the guide has ${found.length} blocks of ${language} with "${words}", not one`)
  return found[0]!.code
}

/** A command of the guide taken apart as a shell does, with `$NAME` taken from `variables`. */
export function commandOf(
  line: string,
  variables: Readonly<Record<string, string>> = {},
): { readonly environment: Record<string, string>; readonly program: string; readonly args: string[] } {
  const words = line
    .trim()
    .split(/\s+/)
    .map((word) => word.replaceAll(/\$([A-Z_]+)/g, (_, name: string) => variables[name] ?? ''))
  const isAssignment = (word: string) => /^[A-Z_]+=/.test(word)
  const first = words.findIndex((word) => !isAssignment(word))
  const assignments = first === -1 ? words : words.slice(0, first)
  const environment = Object.fromEntries(
    assignments.map((word) => [word.slice(0, word.indexOf('=')), word.slice(word.indexOf('=') + 1)]),
  )
  const [program = '', ...args] = first === -1 ? [] : words.slice(first)
  return { environment, program, args }
}
