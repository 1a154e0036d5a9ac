/**
 * Cuts what a batch asks of the database into statements whose answers fit into memory, and keeps alike what is alike:
 * classes that want the same rows pass the same array, which travels once (`readForClasses`).
 */
import type { ClaimSettings } from '../db/as-principal.ts'
import type { Id } from '../wire/messages.ts'
import type { AreaInterest, ClassInterest } from './interest.ts'

/** A part of what a batch asks for one class. */
export interface ClassPart {
  readonly interest: ClassInterest
  readonly ids: readonly Id[]
  /** The places of `ids` in the batch, ascending. */
  readonly rows: readonly number[]
}

/**
 * Settings that one statement may make over all of its classes, each of which sets what any of them does: some ten
 * milliseconds. Classes of a few claims each never come to it, but users may choose the names of their claims.
 */
export const SETTINGS_MAX = 50_000

/** Adds up what the settings of one statement come to. */
export class SettingsCount {
  readonly #names = new Set<string>()
  #classes = 0

  /** Takes one more class; false if it would be too much, for a statement that has one. */
  take(settings: ClaimSettings): boolean {
    const news = Object.keys(settings).filter((name) => !this.#names.has(name))
    const count = (this.#classes + 1) * (this.#names.size + news.length)
    if (this.#classes > 0 && count > SETTINGS_MAX) return false
    this.#classes++
    for (const name of news) this.#names.add(name)
    return true
  }
}

/** Statements of at most `rowsMax` rows, and of at most {@link SETTINGS_MAX} settings, over all of their classes. */
export function* runsOf(
  interests: readonly ClassInterest[],
  ids: readonly Id[],
  rowsMax: number,
): Generator<readonly ClassPart[]> {
  const idsOf = memoized((rows: readonly number[]) => rows.map((place) => ids[place]!))
  const unions = new Map<string, readonly number[]>()
  let run: ClassPart[] = []
  let left = rowsMax
  let settings = new SettingsCount()
  for (const interest of byCountOfSettings(interests)) {
    if (!settings.take(interest.settings)) {
      if (run.length > 0) yield run
      run = []
      left = rowsMax
      settings = new SettingsCount()
      settings.take(interest.settings)
    }
    const rows = rowsOf(interest.areas, ids.length, unions)
    for (let start = 0; start < rows.length; ) {
      const part = start === 0 && rows.length <= left ? rows : rows.slice(start, start + left)
      run.push({ interest, rows: part, ids: idsOf(part) })
      start += part.length
      left -= part.length
      if (left > 0) continue
      yield run
      run = []
      left = rowsMax
      settings = new SettingsCount()
      settings.take(interest.settings)
    }
  }
  if (run.length > 0) yield run
}

/** Those with few settings first, so that they are not cut into many statements by what others have. */
function byCountOfSettings(interests: readonly ClassInterest[]): readonly ClassInterest[] {
  const counts = new Map(interests.map((interest) => [interest, Object.keys(interest.settings).length]))
  return [...interests].sort((a, b) => counts.get(a)! - counts.get(b)!)
}

/** The rows that matter in any of the areas. One array for all that come to the same. */
function rowsOf(
  areas: readonly AreaInterest[],
  count: number,
  unions: Map<string, readonly number[]>,
): readonly number[] {
  const [first] = areas
  if (first === undefined) return []
  if (areas.length === 1) return first.rows
  const isWanted = new Uint8Array(count)
  for (const { rows } of areas) for (const place of rows) isWanted[place] = 1
  const rows: number[] = []
  for (let place = 0; place < count; place++) if (isWanted[place] === 1) rows.push(place)
  const key = rows.join()
  const same = unions.get(key)
  if (same !== undefined) return same
  unions.set(key, rows)
  return rows
}

function memoized<A extends object, R>(make: (argument: A) => R): (argument: A) => R {
  const made = new Map<A, R>()
  return (argument) => {
    const before = made.get(argument)
    if (before !== undefined) return before
    const result = make(argument)
    made.set(argument, result)
    return result
  }
}
