/** Puts `view` frames together by splicing the JSON that Postgres made: rows are never parsed here. */

export interface ViewParts {
  readonly sub: string
  readonly rows?: readonly string[]
  readonly gone?: readonly string[]
  readonly cursor?: string | undefined
  readonly complete?: number | undefined
  readonly settled?: readonly string[]
}

export function viewFrame({ sub, rows = [], gone = [], cursor, complete, settled = [] }: ViewParts): string {
  let frame = `{"type":"view","sub":${JSON.stringify(sub)}`
  if (rows.length > 0) frame += `,"rows":[${rows.join(',')}]`
  if (gone.length > 0) frame += `,"gone":${JSON.stringify(gone)}`
  if (cursor !== undefined) frame += `,"cursor":${JSON.stringify(cursor)}`
  if (complete !== undefined) frame += `,"complete":${complete}`
  if (settled.length > 0) frame += `,"settled":${JSON.stringify(settled)}`
  return `${frame}}`
}

/** Cuts rows into runs of about `characters` of JSON, each of at least one row. */
export function* chunksOf<R extends { readonly json: string }>(
  rows: readonly R[],
  characters: number,
): Generator<readonly R[]> {
  let start = 0
  let size = 0
  for (const [index, { json }] of rows.entries()) {
    size += json.length
    if (size < characters) continue
    yield rows.slice(start, index + 1)
    start = index + 1
    size = 0
  }
  if (start < rows.length) yield rows.slice(start)
}
