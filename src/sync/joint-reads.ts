/**
 * Joins the reads of subscriptions that catch up at the same time, as after an outage or when slow sockets drain, into
 * one statement for all of their classes; what comes while one is under way waits for the next. Where a joint read
 * fails, or leaves all that a class asked for unread since it is too large for many, each reads alone (view-reader.ts),
 * with a limit of its own, and only who is to blame pays for it.
 */
import type { ClassRead, ClassResult } from '../db/as-principal.ts'
import { isUnavailable } from '../db/error-code.ts'
import type { Id } from '../wire/messages.ts'
import { SettingsCount } from './shared-read.ts'
import type { ReadFor, ViewReader } from './subscription-home.ts'

interface Request {
  readonly reader: ReadFor
  readonly ids: readonly Id[]
  readonly resolve: (result: ClassResult | Promise<ClassResult>) => void
}

export interface JointReadsOptions {
  /** One statement. Null: it failed, or what it read may not be used. Never rejects. */
  readonly readTogether: (classes: readonly ClassRead[]) => Promise<readonly ClassResult[] | null>
  readonly readAlone: ViewReader['rows']
  /** Whether the policies of a class were seen to be slow: it always reads alone. */
  readonly isSlow: (classKey: string) => boolean
  /** How many rows one statement may ask for. */
  readonly rowsMax: () => number
}

export class JointReads {
  readonly #options: JointReadsOptions
  readonly #waiting: Request[] = []
  #isReading = false

  constructor(options: JointReadsOptions) {
    this.#options = options
  }

  readonly rows: ViewReader['rows'] = (reader, ids) => {
    if (this.#options.isSlow(reader.class.key)) return this.#options.readAlone(reader, ids)
    return new Promise((resolve) => {
      this.#waiting.push({ reader, ids, resolve })
      if (!this.#isReading) void this.#work()
    })
  }

  async #work(): Promise<void> {
    this.#isReading = true
    // Whoever is told of the same batch asks within this turn of the event loop.
    await Promise.resolve()
    while (this.#waiting.length > 0) await this.#read(this.#next())
    this.#isReading = false
  }

  /** Those whose turn it is: as many as one statement takes, and at least one. */
  #next(): readonly Request[] {
    let left = this.#options.rowsMax()
    let count = 0
    const settings = new SettingsCount()
    const classes = new Set<string>()
    for (const { reader, ids } of this.#waiting) {
      left -= ids.length
      if (left < 0 && count > 0) break
      if (!classes.has(reader.class.key) && !settings.take(reader.class.settings)) break
      classes.add(reader.class.key)
      count++
    }
    return this.#waiting.splice(0, count)
  }

  async #read(requests: readonly Request[]): Promise<void> {
    const classes = new Map<string, { readonly place: number; readonly ids: Set<Id>; readonly of: ReadFor }>()
    for (const { reader, ids } of requests) {
      const one = classes.get(reader.class.key)
      if (one === undefined)
        classes.set(reader.class.key, { place: classes.size, ids: new Set(ids), of: reader })
      else for (const id of ids) one.ids.add(id)
    }
    const reads = [...classes.values()].map(({ ids, of }) => ({ settings: of.class.settings, ids: [...ids] }))
    const keys = requests.map(({ reader }) => reader.class.key)
    const results = await this.#options.readTogether(reads)
    for (const [index, { reader, ids, resolve }] of requests.entries()) {
      const whole = results?.[classes.get(keys[index]!)!.place]
      const result = whole === undefined ? undefined : ownOf(whole, ids)
      // Its claims may have been swapped meanwhile: the subscription looks for that, and throws away what it gets.
      const isOfUse =
        result !== undefined &&
        !('error' in result && isUnavailable({ code: result.error })) &&
        !('rows' in result && result.rows.length === 0 && result.unread.length > 0)
      resolve(isOfUse ? result : this.#options.readAlone(reader, ids))
    }
  }
}

/** What one request asked for, of what was read for its class. */
function ownOf(result: ClassResult, ids: readonly Id[]): ClassResult {
  if ('error' in result) return result
  const own = new Set(ids)
  return {
    rows: result.rows.filter(({ id }) => own.has(id)),
    unread: result.unread.filter((id) => own.has(id)),
  }
}
