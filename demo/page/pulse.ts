/** A ring that shows where somebody else has just changed something. */
import * as L from 'leaflet'
import { colorOf, type Place } from './place.ts'

const PULSE_MS = 1600

export function pulse(map: L.Map, place: Place): void {
  const ring = L.marker([place.latitude, place.longitude], {
    interactive: false,
    keyboard: false,
    icon: L.divIcon({
      className: '',
      html: '<div class="pulse" style="width:28px;height:28px"></div>',
      iconSize: [28, 28],
    }),
  }).addTo(map)
  ring.getElement()!.style.setProperty('--who', colorOf(place.orgId))
  setTimeout(() => ring.remove(), PULSE_MS)
}
