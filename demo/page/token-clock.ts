/** Fetches tokens for the client and shows when the current one ends, so that one sees it being renewed. */
import type { Identity } from '../identities.ts'

export class TokenClock {
  readonly #element = document.querySelector<HTMLElement>('#token')!
  #endsAtMs: number | null = null
  #renewals = -1

  constructor() {
    setInterval(() => this.#show(), 500)
  }

  /** What the client is given as `token`. */
  source(identity: Identity): () => Promise<string> {
    this.#endsAtMs = null
    this.#renewals = -1
    return async () => {
      const answer = await fetch(`/demo/token?as=${identity.id}`)
      if (!answer.ok) throw new Error(`the demo gave no token (HTTP ${answer.status})`)
      const token = await answer.text()
      const payload = JSON.parse(atob(token.split('.')[1]!.replaceAll('-', '+').replaceAll('_', '/'))) as {
        exp: number
      }
      this.#endsAtMs = payload.exp * 1000
      this.#renewals += 1
      this.#show()
      return token
    }
  }

  #show(): void {
    if (this.#endsAtMs === null) {
      this.#element.textContent = '–'
      return
    }
    const seconds = Math.max(0, Math.round((this.#endsAtMs - Date.now()) / 1000))
    const left = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`
    this.#element.textContent = this.#renewals > 0 ? `${left} (renewed ${this.#renewals}×)` : left
  }
}
