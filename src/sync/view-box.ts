/** Whether a row is in a box, by the envelope that it was read with: the rule for what a view shows. */
import type { ReadRow } from '../db/as-principal.ts'
import { intersects, rectanglesOf } from '../wire/bbox.ts'
import type { Bbox } from '../wire/messages.ts'

/** A row without a place is in no box. Edges count as inside. Null, for a table without geometry: everything is in. */
export function isInBox({ minX, minY, maxX, maxY }: ReadRow, bbox: Bbox | null): boolean {
  if (bbox === null) return true
  if (minX === null || minY === null || maxX === null || maxY === null) return false
  return rectanglesOf(bbox).some((rectangle) => intersects({ minX, minY, maxX, maxY }, rectangle))
}
