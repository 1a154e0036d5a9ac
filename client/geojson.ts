/** The view as GeoJSON (RFC 7946), in the shapes that map libraries and `@types/geojson` take. */
import type { Json, Row } from '../src/wire/messages.ts'

/** Longitude, latitude, and maybe more. */
export type Position = number[]

export type Geometry =
  | { type: 'Point'; coordinates: Position }
  | { type: 'MultiPoint' | 'LineString'; coordinates: Position[] }
  | { type: 'MultiLineString' | 'Polygon'; coordinates: Position[][] }
  | { type: 'MultiPolygon'; coordinates: Position[][][] }
  | { type: 'GeometryCollection'; geometries: Geometry[] }

export interface Feature<Properties = { [column: string]: Json }> {
  type: 'Feature'
  /** The row's id as its column has it. */
  id: string | number
  geometry: Geometry
  /** Every column but the geometry, the id among them. */
  properties: Properties
}

export interface FeatureCollection<Properties = { [column: string]: Json }> {
  type: 'FeatureCollection'
  features: Feature<Properties>[]
}

/** Rows without a geometry have no place on a map and are left out; without a geometry column, all are. */
export function featureCollection(
  rows: ReadonlyMap<string, Row>,
  geometryColumn: string | null,
  idColumn: string,
): FeatureCollection {
  const features: Feature[] = []
  if (geometryColumn === null) return { type: 'FeatureCollection', features }
  for (const [id, row] of rows) {
    const { [geometryColumn]: geometry, ...properties } = row
    if (typeof geometry !== 'object' || geometry === null) continue
    const own = row[idColumn]
    features.push({
      type: 'Feature',
      id: typeof own === 'number' ? own : id,
      geometry: geometry as unknown as Geometry,
      properties,
    })
  }
  return { type: 'FeatureCollection', features }
}
