/** Short messages: why an edit was undone, and what others have just changed. */
import { DatumError } from '../../client/index.ts'

const NOTICE_MS = 7000
const FEED_LINES_MAX = 4

const REASONS: Record<string, string> = {
  forbidden: 'the policies do not let you do that',
  not_found: 'it is not yours to change',
  conflict: 'it is in conflict with what is there',
  invalid: 'the database did not accept the values',
  rate_limited: 'that was too much at once',
}

/** Says in words that `deed` was undone; the client has put the old state back by then. */
export function noticeRefusal(deed: string, cause: unknown): void {
  const reason = cause instanceof DatumError ? (REASONS[cause.code] ?? cause.message) : String(cause)
  notice(`${deed} was undone: ${reason}.`)
}

export function notice(text: string): void {
  const line = document.createElement('p')
  line.textContent = text
  document.querySelector('#notices')!.append(line)
  setTimeout(() => line.remove(), NOTICE_MS)
}

export function tellFeed(text: string): void {
  const feed = document.querySelector<HTMLElement>('#feed')!
  const line = document.createElement('li')
  line.textContent = text
  const list = feed.querySelector('ol')!
  list.prepend(line)
  while (list.children.length > FEED_LINES_MAX) list.lastElementChild!.remove()
  feed.hidden = false
}

export function clearFeed(): void {
  const feed = document.querySelector<HTMLElement>('#feed')!
  feed.querySelector('ol')!.replaceChildren()
  feed.hidden = true
}
