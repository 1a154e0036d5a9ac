/** Draws the view's places and turns what a mouse does to them into intentions. Knows nothing of the connection. */
import * as L from 'leaflet'
import type { Identity } from '../identities.ts'
import { colorOf, organisationName, type Place, seemsEditable } from './place.ts'

/** Pixels that a pressed mouse may tremble before it is a drag. */
const DRAG_PIXELS_MIN = 4

interface PlaceIntents {
  select(id: string): void
  move(id: string, longitude: number, latitude: number): void
}

export class PlaceLayer {
  readonly #map: L.Map
  readonly #intents: PlaceIntents
  readonly #renderer = L.canvas({ padding: 0.3, tolerance: 5 })
  readonly #markers = new Map<string, L.CircleMarker>()
  readonly #places = new Map<string, Place>()
  #identity: Identity
  #draggedId: string | null = null

  constructor(map: L.Map, identity: Identity, intents: PlaceIntents) {
    this.#map = map
    this.#identity = identity
    this.#intents = intents
    map.on('zoomend', () => {
      for (const [id, marker] of this.#markers) marker.setRadius(this.#radius(this.#places.get(id)!))
    })
  }

  get places(): ReadonlyMap<string, Place> {
    return this.#places
  }

  get draggedId(): string | null {
    return this.#draggedId
  }

  reset(identity: Identity): void {
    this.#identity = identity
    for (const marker of this.#markers.values()) marker.remove()
    this.#markers.clear()
    this.#places.clear()
  }

  put(place: Place): void {
    this.#places.set(place.id, place)
    const marker = this.#markers.get(place.id)
    if (marker === undefined) {
      this.#markers.set(place.id, this.#create(place))
      return
    }
    if (this.#draggedId !== place.id) marker.setLatLng([place.latitude, place.longitude])
    marker.setStyle(this.#style(place)).setRadius(this.#radius(place))
  }

  remove(id: string): void {
    this.#markers.get(id)?.remove()
    this.#markers.delete(id)
    this.#places.delete(id)
  }

  #create(place: Place): L.CircleMarker {
    const marker = L.circleMarker([place.latitude, place.longitude], {
      ...this.#style(place),
      radius: this.#radius(place),
      renderer: this.#renderer,
      bubblingMouseEvents: false,
    }).addTo(this.#map)
    marker.on('mousedown', (event) => this.#press(place.id, marker, event))
    marker.on('click', () => this.#intents.select(place.id))
    marker.bindTooltip(() => describe(this.#places.get(place.id)!), { className: 'tip', offset: [8, 0] })
    return marker
  }

  /** Leaflet drags its icons only, so a place on the canvas follows the mouse by hand. */
  #press(id: string, marker: L.CircleMarker, pressed: L.LeafletMouseEvent): void {
    if (pressed.originalEvent.button !== 0) return
    this.#map.dragging.disable()
    const follow = (event: MouseEvent) => {
      const at = this.#map.mouseEventToContainerPoint(event)
      if (this.#draggedId === null && at.distanceTo(pressed.containerPoint) < DRAG_PIXELS_MIN) return
      this.#draggedId = id
      // Not chained: closeTooltip returns the tooltip, whatever its types say.
      marker.closeTooltip()
      marker.setLatLng(this.#map.containerPointToLatLng(at))
    }
    const release = () => {
      document.removeEventListener('mousemove', follow)
      this.#map.dragging.enable()
      if (this.#draggedId === null) return
      this.#draggedId = null
      const { lng, lat } = marker.getLatLng()
      this.#intents.move(id, lng, lat)
    }
    // On the document: the mouse may be quicker than the place, and the button may be let go anywhere.
    document.addEventListener('mousemove', follow)
    document.addEventListener('mouseup', release, { once: true })
  }

  /** Filled: one's own to edit. A ring: to look at. */
  #style(place: Place): L.CircleMarkerOptions {
    const color = colorOf(place.orgId)
    return seemsEditable(place, this.#identity)
      ? { color: '#ffffff', weight: 0.8, fillColor: color, fillOpacity: 0.82 }
      : { color, weight: 1.4, fillColor: '#ffffff', fillOpacity: 0.75 }
  }

  /** By population and zoom, so that a continent is not one blot and a district not a few specks. */
  #radius(place: Place): number {
    const size = Math.log10(Math.max(place.population ?? 200_000, 50_000) / 50_000)
    return Math.max(2, 1.5 + size * 1.9 + (this.#map.getZoom() - 3) * (0.75 + size * 0.25))
  }
}

function describe(place: Place): string {
  const safe = document.createElement('span')
  const people = place.population === null ? '' : `, ${place.population.toLocaleString('en')} people`
  safe.textContent = `${place.name}${people} · ${organisationName(place.orgId)}${place.isPublic ? ', public' : ''}`
  return safe.innerHTML
}
