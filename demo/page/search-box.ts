/** Finds a place by name among those in view: also the way to a place for whoever has no mouse. */
import type { Place } from './place.ts'

const RESULTS_MAX = 6

export function wireSearch(places: ReadonlyMap<string, Place>, choose: (place: Place) => void): void {
  const form = document.querySelector<HTMLFormElement>('#find')!
  const query = document.querySelector<HTMLInputElement>('#query')!
  const list = document.querySelector<HTMLUListElement>('#found')!

  const find = () => {
    const wanted = plain(query.value.trim())
    const found = wanted === '' ? [] : matches(places, wanted)
    list.replaceChildren(...found.map((place) => entry(place, pick)))
    list.hidden = found.length === 0
  }
  const pick = (place: Place) => {
    query.value = ''
    find()
    choose(place)
  }
  query.addEventListener('input', find)
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    list.querySelector('button')?.click()
  })
}

/** Names that begin with what is wanted come first, then the larger ones. */
function matches(places: ReadonlyMap<string, Place>, wanted: string): Place[] {
  const rank = (place: Place) => (plain(place.name).startsWith(wanted) ? 0 : 1)
  return [...places.values()]
    .filter((place) => plain(place.name).includes(wanted))
    .sort((a, b) => rank(a) - rank(b) || (b.population ?? 0) - (a.population ?? 0))
    .slice(0, RESULTS_MAX)
}

/** Without case and accents, so that "sao" finds São Paulo. */
function plain(text: string): string {
  return text
    .normalize('NFD')
    .replace(/\p{Mn}/gu, '')
    .toLowerCase()
}

function entry(place: Place, pick: (place: Place) => void): HTMLLIElement {
  const button = document.createElement('button')
  button.type = 'button'
  const size = document.createElement('small')
  size.textContent = place.population?.toLocaleString('en') ?? ''
  button.append(place.name, size)
  button.addEventListener('click', () => pick(place))
  const item = document.createElement('li')
  item.append(button)
  return item
}
