/** The map itself: where it starts, how far it goes, and the box that it shows. */
import * as L from 'leaflet'
import type { Bbox } from '../../client/index.ts'
import type { Identity } from '../identities.ts'

/** Web Mercator's end of the world. */
const LATITUDE_MAX = 85.05

const START: Record<string, L.LatLngBoundsExpression> = {
  condor: [
    [-45, -125],
    [55, -35],
  ],
  heron: [
    [-32, -20],
    [60, 50],
  ],
  crane: [
    [-42, 60],
    [52, 155],
  ],
}

const WORLD: L.LatLngBoundsExpression = [
  [-50, -150],
  [70, 170],
]

export function createMap(element: HTMLElement, identity: Identity): L.Map {
  const map = L.map(element, {
    maxBounds: [
      [-LATITUDE_MAX, -180],
      [LATITUDE_MAX, 180],
    ],
    maxBoundsViscosity: 1,
    maxZoom: 11,
    zoomSnap: 0.25,
    zoomDelta: 0.75,
    zoomControl: false,
  })
  L.control.zoom({ position: 'topright' }).addTo(map)
  map.attributionControl.setPrefix('<a href="https://leafletjs.com">Leaflet</a>')
  map.attributionControl.addAttribution(
    'Places: <a href="https://www.geonames.org">GeoNames</a>, ' +
      '<a href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>. ' +
      'Outlines: <a href="https://www.naturalearthdata.com">Natural Earth</a>',
  )
  const limitZoom = () => {
    const { x, y } = map.getSize()
    map.setMinZoom(Math.max(1, Math.ceil(Math.log2(Math.max(x, y) / 256) * 4) / 4))
  }
  limitZoom()
  map.on('resize', limitZoom)
  const from = readHash()
  if (from === null)
    map.fitBounds(START[identity.orgId ?? ''] ?? WORLD, { paddingTopLeft: [panelWidth(), 0] })
  else map.setView([from.latitude, from.longitude], from.zoom)
  map.on('moveend', () => writeHash(map))
  return map
}

/** The box to subscribe to: what is in sight and a little more, so that a short pan shows no gap. */
export function bboxOf(map: L.Map): Bbox {
  const bounds = map.getBounds().pad(0.1)
  const round = (degrees: number, max: number) =>
    Math.round(Math.max(-max, Math.min(max, degrees)) * 1e4) / 1e4
  return [
    round(bounds.getWest(), 180),
    round(bounds.getSouth(), 90),
    round(bounds.getEast(), 180),
    round(bounds.getNorth(), 90),
  ]
}

/** The panel covers a part of the map where there is room beside it. */
function panelWidth(): number {
  return window.innerWidth > 640 ? 320 : 0
}

function readHash(): { zoom: number; latitude: number; longitude: number } | null {
  const parts = location.hash.slice(1).split('/').map(Number)
  const [zoom, latitude, longitude] = parts
  if (parts.length !== 3 || !parts.every(Number.isFinite)) return null
  return { zoom: zoom!, latitude: latitude!, longitude: longitude! }
}

function writeHash(map: L.Map): void {
  const { lat, lng } = map.getCenter()
  history.replaceState(null, '', `#${map.getZoom()}/${lat.toFixed(3)}/${lng.toFixed(3)}`)
}
