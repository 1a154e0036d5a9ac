/**
 * The connection as one identity: brings the client's view onto the map and carries edits back. `main.ts` makes a new
 * one whenever the identity changes.
 */
import type * as L from 'leaflet'
import { type Change, DatumClient, type Row } from '../../client/index.ts'
import type { Identity } from '../identities.ts'
import type { LabelLayer } from './label-layer.ts'
import { bboxOf } from './map-view.ts'
import { notice, noticeRefusal, tellFeed } from './notices.ts'
import { type Place, toPlace, toPoint } from './place.ts'
import type { PlaceLayer } from './place-layer.ts'
import { pulse } from './pulse.ts'
import type { Selection } from './selection.ts'
import type { TokenClock } from './token-clock.ts'

/** More than this at once is not what somebody just did, but a connection that came back. */
const NEWS_MAX = 20

interface LiveParts {
  readonly map: L.Map
  readonly identity: Identity
  readonly layer: PlaceLayer
  readonly labels: LabelLayer
  readonly selection: Selection
  readonly clock: TokenClock
}

export class LiveView {
  readonly #parts: LiveParts
  readonly #client: Promise<DatumClient>
  /** Ids that this window has edited and not yet heard back about. */
  readonly #mine = new Map<string, number>()
  /** Views under way, whose rows are news to the map but nothing that anybody has just done. */
  #moving = 0
  #isClosed = false

  constructor(parts: LiveParts) {
    this.#parts = parts
    this.#client = this.#connect()
  }

  async #connect(): Promise<DatumClient> {
    const client = await DatumClient.connect({
      serverUrl: `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`,
      table: 'places',
      bbox: bboxOf(this.#parts.map),
      token: this.#parts.clock.source(this.#parts.identity),
      onStatusChange: (status) => this.#isClosed || showStatus(status),
    })
    if (this.#isClosed) {
      await client.disconnect()
      return client
    }
    client.onChange((change) => this.#apply(change, this.#moving === 0))
    client.onPendingChange((count) => setText('#pending', String(count)))
    this.#apply({ upserts: [...client.rows.values()], gone: [] }, false)
    // The map may have moved while the connection was made.
    await this.#setBbox(client)
    return client
  }

  /** Resolves when the client is connected and the first view is drawn; rejects if that fails for good. */
  async ready(): Promise<void> {
    await this.#client
  }

  async followMap(): Promise<void> {
    const client = await this.#client
    await this.#setBbox(client).catch((cause) => {
      if (!this.#isClosed) notice(String(cause))
    })
  }

  async add(longitude: number, latitude: number): Promise<void> {
    const id = crypto.randomUUID()
    const row = {
      id,
      name: 'New place',
      country: null,
      population: null,
      is_public: false,
      // Without an organisation of its own the page asks for a foreign one, and the policies say no.
      org_id: this.#parts.identity.orgId ?? 'heron',
      geom: toPoint(longitude, latitude),
    }
    await this.#edit(id, 'Adding a place', (client) => {
      const settled = client.insert(row)
      const place = this.#parts.layer.places.get(id)
      if (place) this.#parts.selection.show(place, 'name')
      return settled
    })
  }

  async move(id: string, longitude: number, latitude: number): Promise<void> {
    const deed = `Moving ${this.#nameOf(id)}`
    await this.#edit(id, deed, (client) => client.update(id, { geom: toPoint(longitude, latitude) }))
  }

  async change(id: string, columns: Row): Promise<void> {
    await this.#edit(id, `Changing ${this.#nameOf(id)}`, (client) => client.update(id, columns))
  }

  async remove(id: string): Promise<void> {
    await this.#edit(id, `Deleting ${this.#nameOf(id)}`, (client) => client.delete(id))
  }

  async close(): Promise<void> {
    this.#isClosed = true
    const client = await this.#client.catch(() => null)
    await client?.disconnect()
  }

  async #setBbox(client: DatumClient): Promise<void> {
    this.#moving += 1
    try {
      await client.setBbox(bboxOf(this.#parts.map))
    } finally {
      this.#moving -= 1
    }
  }

  async #edit(id: string, deed: string, run: (client: DatumClient) => Promise<unknown>): Promise<void> {
    const client = await this.#client
    this.#mine.set(id, (this.#mine.get(id) ?? 0) + 1)
    try {
      await run(client)
    } catch (cause) {
      if (!this.#isClosed) noticeRefusal(deed, cause)
      // The handle and the form may still show what was wanted.
      const place = this.#parts.layer.places.get(id)
      if (this.#parts.selection.id === id && place) this.#parts.selection.show(place)
    } finally {
      const left = this.#mine.get(id)! - 1
      if (left === 0) this.#mine.delete(id)
      else this.#mine.set(id, left)
    }
  }

  #apply(change: Change, isLive: boolean): void {
    if (this.#isClosed) return
    const isNews = isLive && change.upserts.length + change.gone.length <= NEWS_MAX
    const { layer, labels, selection, map } = this.#parts
    for (const row of change.upserts) {
      const place = toPlace(row)
      const before = layer.places.get(place.id)
      layer.put(place)
      if (selection.id === place.id) selection.show(place)
      if (!isNews || this.#mine.has(place.id)) continue
      const news = newsOf(before, place)
      if (news === null) continue
      tellFeed(news)
      pulse(map, place)
    }
    for (const id of change.gone) {
      const before = layer.places.get(id)
      layer.remove(id)
      if (selection.id === id) selection.clear()
      if (isNews && before && !this.#mine.has(id)) tellFeed(`${before.name} is gone`)
    }
    labels.refresh()
    setText('#count', layer.places.size.toLocaleString('en'))
  }

  #nameOf(id: string): string {
    return this.#parts.layer.places.get(id)?.name ?? 'the place'
  }
}

function newsOf(before: Place | undefined, after: Place): string | null {
  if (before === undefined) return `${after.name} appeared`
  if (before.name !== after.name) return `${before.name} is now ${after.name}`
  if (before.longitude !== after.longitude || before.latitude !== after.latitude) return `${after.name} moved`
  if (before.isPublic !== after.isPublic)
    return `${after.name} is ${after.isPublic ? 'public now' : 'no longer public'}`
  return null
}

function showStatus(status: 'connecting' | 'connected' | 'disconnected'): void {
  const element = document.querySelector<HTMLElement>('#status')!
  element.dataset.status = status
  element.querySelector('span')!.textContent = status[0]!.toUpperCase() + status.slice(1)
}

function setText(selector: string, text: string): void {
  document.querySelector(selector)!.textContent = text
}
