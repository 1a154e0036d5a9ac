/**
 * Makes outlines that cross the antimeridian drawable on a flat map. On the globe their rings step from 180° to −180°;
 * drawn as they are, that step is a line across the whole world.
 */
import type { MultiPolygon, Position } from 'geojson'

/** The same area, with each ring that crosses drawn twice: once at either edge of the map, running over it. */
export function spread(area: MultiPolygon): MultiPolygon {
  const coordinates = area.coordinates.flatMap((polygon) => {
    const unrolled = polygon.map(unroll)
    const outer = unrolled[0]!
    const longitudes = outer.map(([longitude]) => longitude!)
    const copies = [unrolled]
    if (Math.max(...longitudes) > 180) copies.push(unrolled.map((ring) => shift(ring, -360)))
    if (Math.min(...longitudes) < -180) copies.push(unrolled.map((ring) => shift(ring, 360)))
    return copies
  })
  return { type: 'MultiPolygon', coordinates }
}

/** The ring without steps of more than half a turn; its longitudes may leave ±180°. */
function unroll(ring: readonly Position[]): Position[] {
  let turns = 0
  let before = ring[0]![0]!
  const unrolled = ring.map(([longitude, latitude]) => {
    if (longitude! - before > 180) turns -= 1
    if (longitude! - before < -180) turns += 1
    before = longitude!
    return [longitude! + 360 * turns, latitude!]
  })
  if (turns === 0) return unrolled
  // A ring that ends a turn away from where it began goes around a pole: Antarctica. It is closed over that pole.
  return [...unrolled, [unrolled.at(-1)![0]!, -90], [unrolled[0]![0]!, -90], unrolled[0]!]
}

function shift(ring: readonly Position[], degrees: number): Position[] {
  return ring.map(([longitude, latitude]) => [longitude! + degrees, latitude!])
}
