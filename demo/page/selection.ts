/**
 * The selected place: a handle on the map that mouse, finger and arrow keys can move, and the form that renames,
 * publishes and deletes it.
 */
import * as L from 'leaflet'
import { organisationName, type Place } from './place.ts'

/** How far an arrow key moves a place, in pixels, so that it is fine when zoomed in. With Shift four times as far. */
const NUDGE_PIXELS = 6

const ARROWS: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
}

interface SelectionIntents {
  move(id: string, longitude: number, latitude: number): void
  change(id: string, columns: { name?: string; is_public?: boolean }): void
  remove(id: string): void
}

export class Selection {
  readonly #map: L.Map
  readonly #intents: SelectionIntents
  readonly #form = document.querySelector<HTMLFormElement>('#editor')!
  readonly #name = document.querySelector<HTMLInputElement>('#name')!
  readonly #facts = document.querySelector<HTMLElement>('#facts')!
  readonly #public = document.querySelector<HTMLInputElement>('#public')!
  readonly #handle: L.Marker
  #place: Place | null = null
  #isDragged = false

  constructor(map: L.Map, intents: SelectionIntents) {
    this.#map = map
    this.#intents = intents
    this.#handle = L.marker([0, 0], {
      draggable: true,
      autoPan: true,
      bubblingMouseEvents: false,
      icon: L.divIcon({ className: 'handle', iconSize: [30, 30] }),
    })
    // Without a listener of its own Leaflet takes a click on the handle for one on the map, which deselects.
    this.#handle.on('click', () => {})
    this.#handle.on('dragstart', () => {
      this.#isDragged = true
    })
    this.#handle.on('dragend', () => {
      this.#isDragged = false
      this.#moved()
    })
    this.#form.addEventListener('submit', (event) => this.#rename(event))
    this.#public.addEventListener('change', () => {
      if (this.#place) intents.change(this.#place.id, { is_public: this.#public.checked })
    })
    document.querySelector('#delete')!.addEventListener('click', () => this.#remove())
    document.querySelector('#close')!.addEventListener('click', () => this.clear())
    this.#form.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.clear()
    })
  }

  get id(): string | null {
    return this.#place?.id ?? null
  }

  /** Shows the place, or its new state if it is the one shown. `focus` puts the cursor where it is wanted next. */
  show(place: Place, focus: 'name' | 'handle' | null = null): void {
    const isOther = this.#place?.id !== place.id
    // What somebody is typing is theirs; a change from elsewhere must not take it away.
    if (isOther || document.activeElement !== this.#name) this.#name.value = place.name
    this.#place = place
    this.#public.checked = place.isPublic
    this.#facts.textContent = factsOf(place)
    this.#form.hidden = false
    if (!this.#isDragged) this.#handle.setLatLng([place.latitude, place.longitude])
    if (!this.#map.hasLayer(this.#handle)) {
      this.#handle.addTo(this.#map)
      this.#handle.getElement()!.addEventListener('keydown', (event) => this.#key(event))
    }
    this.#handle
      .getElement()!
      .setAttribute('aria-label', `${place.name}. Arrow keys move it, Delete deletes it.`)
    if (focus === 'name') this.#name.select()
    if (focus === 'handle') this.#handle.getElement()!.focus()
  }

  clear(): void {
    const hadFocus = this.#form.contains(document.activeElement)
    this.#place = null
    this.#form.hidden = true
    this.#handle.remove()
    if (hadFocus) this.#map.getContainer().focus()
  }

  #rename(event: Event): void {
    event.preventDefault()
    const name = this.#name.value.trim()
    if (this.#place && name !== '' && name !== this.#place.name)
      this.#intents.change(this.#place.id, { name })
  }

  #remove(): void {
    const id = this.id
    if (id === null) return
    this.clear()
    this.#intents.remove(id)
  }

  #moved(): void {
    if (this.#place === null) return
    const { lng, lat } = this.#handle.getLatLng()
    this.#intents.move(this.#place.id, lng, lat)
  }

  #key(event: KeyboardEvent): void {
    if (event.key === 'Escape') this.clear()
    if (event.key === 'Delete' || event.key === 'Backspace') this.#remove()
    const arrow = ARROWS[event.key]
    if (arrow === undefined) return
    event.preventDefault()
    event.stopPropagation()
    const step = NUDGE_PIXELS * (event.shiftKey ? 4 : 1)
    const from = this.#map.latLngToContainerPoint(this.#handle.getLatLng())
    const to = from.add([arrow[0] * step, arrow[1] * step])
    this.#handle.setLatLng(this.#map.containerPointToLatLng(to))
    this.#moved()
  }
}

function factsOf(place: Place): string {
  const parts = [`Belongs to ${organisationName(place.orgId)}`]
  if (place.country !== null)
    parts.push(new Intl.DisplayNames('en', { type: 'region' }).of(place.country) ?? '')
  if (place.population !== null) parts.push(`${place.population.toLocaleString('en')} people`)
  return parts.join(' · ')
}
