/** The state of "the next click adds a place", for mouse, finger and keyboard. */
import type * as L from 'leaflet'

export function wireAddMode(map: L.Map, add: (longitude: number, latitude: number) => void): void {
  const button = document.querySelector<HTMLButtonElement>('#add')!
  const hint = document.querySelector<HTMLElement>('#add-hint')!
  const container = map.getContainer()
  const isOn = () => container.classList.contains('adding')
  const set = (on: boolean) => {
    container.classList.toggle('adding', on)
    button.setAttribute('aria-pressed', String(on))
    button.textContent = on ? 'Click where it should be' : 'Add a place'
    hint.hidden = !on
    if (on) container.focus()
  }
  const take = ({ lng, lat }: L.LatLng) => {
    set(false)
    add(lng, lat)
  }
  button.addEventListener('click', () => set(!isOn()))
  map.on('click', (event) => {
    if (isOn()) take(event.latlng)
  })
  document.addEventListener('keydown', (event) => {
    if (!isOn()) return
    if (event.key === 'Escape') set(false)
    if (event.key === 'Enter' && document.activeElement === container) take(map.getCenter())
  })
}
