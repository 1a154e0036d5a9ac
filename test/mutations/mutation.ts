/** A deliberate breakage of one invariant, as text to be replaced; `main.ts` makes it and sees whether a test notices. */

export interface Mutation {
  /** The invariant of docs/ARCHITECTURE.md that it breaks. */
  readonly invariant: `I${number}`
  /** What is broken, in words. */
  readonly breaks: string
  readonly file: string
  /** Must be in the file exactly once. */
  readonly find: string
  readonly replace: string
  /** Files of which some test must fail. */
  readonly tests: readonly string[]
  /** Of these only the tests whose names match, where the whole file would take long. */
  readonly only?: string
}

/** The source with the breakage in it. Throws where the text to be replaced is not there exactly once. */
export function mutate({ file, find, replace }: Mutation, source: string): string {
  const times = source.split(find).length - 1
  if (times !== 1) throw new Error(`${file} has ${JSON.stringify(find)} ${times} times instead of once`)
  return source.replace(find, () => replace)
}
