/** Compares a view with the truth, column by column. */
import { isDeepStrictEqual } from 'node:util'
import type { Id, Row } from '../../src/wire/messages.ts'
import type { ComparableRow } from './truth.ts'

/** In words, how a view differs from the truth; empty if it does not. */
export function differences(
  expected: ReadonlyMap<Id, ComparableRow>,
  actual: ReadonlyMap<Id, Row>,
  geometryColumn: string | null,
): string[] {
  const found: string[] = []
  for (const id of actual.keys()) if (!expected.has(id)) found.push(`${id} is shown but should not be`)
  for (const [id, want] of expected) {
    const row = actual.get(id)
    if (!row) found.push(`${id} is missing`)
    else found.push(...rowDifferences(id, want, row, geometryColumn))
  }
  return found
}

function rowDifferences(id: Id, want: ComparableRow, row: Row, geometryColumn: string | null): string[] {
  const found: string[] = []
  for (const [column, value] of Object.entries(want)) {
    const have = row[column]
    const isSame =
      column === geometryColumn ? sameGeometry(have, JSON.parse(value ?? 'null')) : sameValue(have, value)
    if (!isSame) found.push(`${id}.${column} is ${JSON.stringify(have)} but should be ${value}`)
  }
  return found
}

/** `text`: as `jsonb_each_text` writes it, with spaces of its own inside JSON and all the digits of a number. */
function sameValue(value: unknown, text: string | null): boolean {
  if (value === null || value === undefined || text === null) return (value ?? null) === text
  if (typeof value === 'number') return value === Number(text)
  if (typeof value === 'object') return isDeepStrictEqual(value, parsed(text))
  return String(value) === text
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Whether two GeoJSON geometries are the same but for the last digits, which two ways to transform and print may differ in. */
function sameGeometry(a: unknown, b: unknown): boolean {
  if (typeof a === 'number' && typeof b === 'number') return Math.abs(a - b) < 1e-9
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return a === b
  const [keysA, keysB] = [Object.keys(a).filter(isGeometryKey), Object.keys(b).filter(isGeometryKey)]
  const within = (value: object, key: string) => (value as Record<string, unknown>)[key]
  return keysA.length === keysB.length && keysA.every((key) => sameGeometry(within(a, key), within(b, key)))
}

const isGeometryKey = (key: string) => key !== 'crs' && key !== 'bbox'
