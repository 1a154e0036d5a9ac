/**
 * What one shared read comes to for the subscriptions of one class that watch one area: worked out once, and put into one
 * frame for all of them but those that have more to be told. `table-hub.ts` makes it, `subscription.ts` sends it.
 */
import type { ReadRow } from '../db/as-principal.ts'
import { VIEW_FRAME_CHARACTERS } from '../wire/limits.ts'
import { viewFrame } from './view-frame.ts'

export class Delivery {
  /** In view. */
  readonly present: readonly ReadRow[]
  /** Their handles, retained until the batch is handed out. */
  readonly presentHandles: readonly number[]
  /** Handles of rows that are not in view, likewise. */
  readonly absentHandles: readonly number[]
  /** Whether `present` fits into one frame. Then no row of it is too large to be sent, either. */
  readonly isOneFrame: boolean
  readonly #frames = new Map<string, string>()

  constructor(
    present: readonly ReadRow[],
    presentHandles: readonly number[],
    absentHandles: readonly number[],
  ) {
    this.present = present
    this.presentHandles = presentHandles
    this.absentHandles = absentHandles
    let length = 0
    for (const { json } of present) length += json.length
    this.isOneFrame = length < VIEW_FRAME_CHARACTERS
  }

  /** The frame for a subscription of that name that has nothing else to be told. */
  frame(sub: string, cursor: string | undefined): string {
    const key = `${cursor} ${sub}`
    let frame = this.#frames.get(key)
    if (frame === undefined) {
      frame = viewFrame({ sub, rows: this.present.map(({ json }) => json), cursor })
      this.#frames.set(key, frame)
    }
    return frame
  }
}
