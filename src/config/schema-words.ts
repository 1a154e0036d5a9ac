/** Puts what the schema found wrong with datum.yaml into words: the key, what it must be, and what was probably meant. */
import type { z } from 'zod'
import { keysAt, sectionOf } from './schema.ts'
import { didYouMean } from './suggest.ts'

/** True for the key under which people put the JWT secret into the file. It has a refusal of its own. */
export const isSecretKey = (key: string) => /^jwt[-_ ]?secret$/i.test(key)

/** Turns what zod found into words, one entry for each key concerned. */
export function explainIssue(
  issue: z.core.$ZodIssue,
  content: unknown,
): readonly { readonly path: readonly PropertyKey[]; readonly message: string }[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys
      .filter((key) => !isSecretKey(key))
      .map((key) => ({ path: [...issue.path, key], message: unknownKey(issue.path, key) }))
  }
  const value = issue.path.reduce<unknown>(
    (at, key) => (at as Record<PropertyKey, unknown> | null)?.[key],
    content,
  )
  const name = issue.path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`)).join('')
  const message =
    value === undefined
      ? `is missing; it ${issue.message}`
      : value === null
        ? `has no value; it ${issue.message} (or take the key out)`
        : issue.message
  return [{ path: issue.path, message: `"${name.slice(1)}" ${message}` }]
}

function unknownKey(path: readonly PropertyKey[], key: string): string {
  if (/^(database_?url|db|db_?url|url|postgres|password)$/i.test(key)) {
    return `"${key}" is not a key of this file: a database URL holds a password. Use DATABASE_URL or -db.`
  }
  const section = sectionOf(key)
  if (section !== null) {
    return `"${key}" does not belong here, but ${section === '' ? 'at the top of the file' : `under "${section}"`}.`
  }
  const known = keysAt(path)
  const hint = didYouMean(key, known) || ` Known here: ${known.join(', ')}.`
  return `there is no key "${key}".${hint}`
}
