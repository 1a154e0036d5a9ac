/** Values as they travel. */
import { NESTING_MAX } from '../src/wire/limits.ts'
import type { Json, Row } from '../src/wire/messages.ts'
import { DatumError } from './datum-error.ts'

/**
 * A copy of an application's columns as the wire has them, safe from later changes to the original. Dates become ISO
 * 8601 strings, bigints and numbers that JSON lacks become strings that Postgres reads; undefined columns are left
 * out. Throws `invalid` for what has no JSON form, or one that is nested deeper than the server takes (it would close
 * the socket over it).
 */
export function copyColumns(columns: unknown): Row {
  try {
    const copy: unknown = JSON.parse(JSON.stringify(columns, wireForm) ?? 'null')
    const isObject = typeof copy === 'object' && copy !== null && !Array.isArray(copy)
    if (isObject && !isNestedDeeper(copy as Row, COLUMNS_NESTING_MAX)) return copy as Row
  } catch {
    // A cycle, or a toJSON that throws: told below without quoting values.
  }
  throw new DatumError(
    'invalid',
    'Columns must be an object of JSON values by column name, not nested too deeply.',
  )
}

function wireForm(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return String(value)
  // JSON.stringify would make null of NaN, and a lost measurement is worse than a string.
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
  return value
}

/** Around the columns are the message, its list of edits, and the edit. */
const COLUMNS_NESTING_MAX = NESTING_MAX - 3

function isNestedDeeper(value: Json, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  return levels === 0 || Object.values(value).some((inner) => isNestedDeeper(inner, levels - 1))
}

/** Whether two values are the same JSON, whatever the order of their keys. */
export function sameJson(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  if (Array.isArray(a) || Array.isArray(b)) {
    if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false
    for (let index = 0; index < a.length; index++) if (!sameJson(a[index], b[index])) return false
    return true
  }
  const left = a as Row
  const right = b as Row
  const keys = Object.keys(left)
  if (keys.length !== Object.keys(right).length) return false
  // Loops and not `every`: this runs for each row that comes, and a closure a row is what it would mostly cost.
  for (const key of keys) if (!Object.hasOwn(right, key) || !sameJson(left[key], right[key])) return false
  return true
}

/** Bytes of a text in UTF-8, which is what the server's limits count. */
export function utf8Bytes(text: string): number {
  return new TextEncoder().encode(text).length
}
