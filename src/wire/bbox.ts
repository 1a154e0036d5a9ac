/** Boxes on the globe: what is valid, and what is inside. Shared by server and client. */
import type { Bbox } from './messages.ts'

/** West, south, east, north of a geometry, never crossing the antimeridian. */
export interface Envelope {
  readonly minX: number
  readonly minY: number
  readonly maxX: number
  readonly maxY: number
}

/**
 * Says what is wrong with a box, or null if nothing is. Longitudes must be within ±180 and latitudes within ±90;
 * south ≤ north; west > east is allowed and means across the antimeridian.
 */
export function bboxProblem(value: unknown): string | null {
  if (!Array.isArray(value) || value.length !== 4) return 'bbox must be [west, south, east, north]'
  if (!value.every((n) => typeof n === 'number' && Number.isFinite(n)))
    return 'bbox must have four finite numbers'
  const [west, south, east, north] = value as [number, number, number, number]
  if (west < -180 || west > 180 || east < -180 || east > 180)
    return 'bbox longitudes must be within -180 and 180'
  if (south < -90 || south > 90 || north < -90 || north > 90)
    return 'bbox latitudes must be within -90 and 90'
  if (south > north) return 'bbox south must not be north of its north'
  return null
}

/** The box as one rectangle, or as two where it crosses the antimeridian. */
export function rectanglesOf([west, south, east, north]: Bbox): readonly Envelope[] {
  if (west <= east) return [{ minX: west, minY: south, maxX: east, maxY: north }]
  return [
    { minX: west, minY: south, maxX: 180, maxY: north },
    { minX: -180, minY: south, maxX: east, maxY: north },
  ]
}

/** Whether two rectangles touch, edges included. False if any edge is NaN. */
export function intersects(a: Envelope, b: Envelope): boolean {
  return a.minX <= b.maxX && a.maxX >= b.minX && a.minY <= b.maxY && a.maxY >= b.minY
}
