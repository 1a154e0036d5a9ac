/** The demo's page: builds the map and its parts and wires them to the connection of the chosen identity. */
import { wireAddMode } from './add-mode.ts'
import { identityOfAddress, wireIdentities } from './identity-picker.ts'
import { LabelLayer } from './label-layer.ts'
import { LiveView } from './live-view.ts'
import { createMap } from './map-view.ts'
import { clearFeed, notice } from './notices.ts'
import { PlaceLayer } from './place-layer.ts'
import { wireSearch } from './search-box.ts'
import { Selection } from './selection.ts'
import { TokenClock } from './token-clock.ts'
import { addWorld } from './world-layer.ts'

const first = identityOfAddress()
const map = createMap(document.querySelector<HTMLElement>('#map')!, first)
const clock = new TokenClock()
const intents = {
  select: (id: string) => selection.show(layer.places.get(id)!),
  move: (id: string, longitude: number, latitude: number) => void live.move(id, longitude, latitude),
  change: (id: string, columns: { name?: string; is_public?: boolean }) => void live.change(id, columns),
  remove: (id: string) => void live.remove(id),
}
const layer = new PlaceLayer(map, first, intents)
const labels = new LabelLayer(map, layer.places)
const selection = new Selection(map, intents)

function connectAs(identity: typeof first): LiveView {
  selection.clear()
  layer.reset(identity)
  labels.refresh()
  clearFeed()
  const view = new LiveView({ map, identity, layer, labels, selection, clock })
  view.ready().catch((cause) => notice(`No connection: ${cause instanceof Error ? cause.message : cause}`))
  return view
}

let live = connectAs(first)
wireIdentities(first, (identity) => {
  void live.close()
  live = connectAs(identity)
})
wireAddMode(map, (longitude, latitude) => void live.add(longitude, latitude))
wireSearch(layer.places, (place) => {
  map.setView([place.latitude, place.longitude], Math.max(map.getZoom(), 6))
  selection.show(place, 'handle')
})
map.on('moveend', () => void live.followMap())
map.on('click', () => selection.clear())

const second = document.querySelector<HTMLAnchorElement>('#second')!
const pointSecondHere = () => {
  second.href = location.href
}
second.addEventListener('focus', pointSecondHere)
second.addEventListener('pointerenter', pointSecondHere)
second.addEventListener('click', pointSecondHere)

await addWorld(map)
