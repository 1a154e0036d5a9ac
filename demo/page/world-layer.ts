/** The map under the places: land and borders from Natural Earth, drawn from a file of the demo's own server. */
import * as L from 'leaflet'
import { merge, mesh } from 'topojson-client'
import type { GeometryCollection, Topology } from 'topojson-specification'
import { spread } from './antimeridian.ts'

type MergeArguments = Parameters<typeof merge>[1]

const LAND = { stroke: true, color: '#b9c7ce', weight: 0.8, fillColor: '#fbfaf6', fillOpacity: 1 }
const BORDERS = { color: '#d5d2c6', weight: 0.9, fill: false }

export async function addWorld(map: L.Map): Promise<void> {
  const answer = await fetch('/demo/world.json')
  const world = (await answer.json()) as Topology<{ countries: GeometryCollection }>
  // A canvas of its own, so that it is not drawn again whenever a place changes.
  map.createPane('world').style.zIndex = '200'
  const renderer = L.canvas({ pane: 'world', padding: 0.4 })
  const still = { renderer, pane: 'world', interactive: false }
  const land = spread(merge(world, world.objects.countries.geometries as MergeArguments))
  const borders = mesh(world, world.objects.countries, (a, b) => a !== b)
  L.geoJSON(land, { ...still, style: { ...still, ...LAND } }).addTo(map)
  L.geoJSON(borders, { ...still, style: { ...still, ...BORDERS } }).addTo(map)
}
