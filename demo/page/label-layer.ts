/** Names of the largest places in view, as many as fit without covering each other. */
import * as L from 'leaflet'
import type { Place } from './place.ts'

const LABELS_MAX = 60
const LINE_HEIGHT = 18
/** Rough width of a letter, in pixels: the real width would need a layout for each. */
const LETTER_WIDTH = 7

export class LabelLayer {
  readonly #map: L.Map
  readonly #layer: L.LayerGroup
  readonly #places: ReadonlyMap<string, Place>
  #isDue = false

  constructor(map: L.Map, places: ReadonlyMap<string, Place>) {
    this.#map = map
    this.#places = places
    map.createPane('labels').style.zIndex = '450'
    map.getPane('labels')!.style.pointerEvents = 'none'
    this.#layer = L.layerGroup().addTo(map)
    map.on('moveend', () => this.refresh())
  }

  /** Draws anew with the next frame of the screen, however often it was asked for until then. */
  refresh(): void {
    if (this.#isDue) return
    this.#isDue = true
    requestAnimationFrame(() => {
      this.#isDue = false
      this.#draw()
    })
  }

  #draw(): void {
    this.#layer.clearLayers()
    const bounds = this.#map.getBounds()
    const largest = [...this.#places.values()]
      .filter((place) => bounds.contains([place.latitude, place.longitude]))
      .sort((a, b) => (b.population ?? 1e9) - (a.population ?? 1e9))
    const taken: L.Bounds[] = []
    for (const place of largest.slice(0, LABELS_MAX * 8)) {
      if (taken.length >= LABELS_MAX) break
      const at = this.#map.latLngToLayerPoint([place.latitude, place.longitude])
      const corner = at.add([8, -LINE_HEIGHT / 2])
      const box = L.bounds(corner, corner.add([place.name.length * LETTER_WIDTH + 6, LINE_HEIGHT]))
      if (taken.some((other) => other.overlaps(box))) continue
      taken.push(box)
      this.#layer.addLayer(label(place))
    }
  }
}

function label(place: Place): L.Marker {
  const text = document.createElement('span')
  text.textContent = place.name
  const isBig = (place.population ?? 0) > 4_000_000
  return L.marker([place.latitude, place.longitude], {
    pane: 'labels',
    interactive: false,
    keyboard: false,
    icon: L.divIcon({
      html: text,
      className: isBig ? 'label big' : 'label',
      iconSize: [0, 0],
      iconAnchor: [-8, LINE_HEIGHT / 2],
    }),
  })
}
