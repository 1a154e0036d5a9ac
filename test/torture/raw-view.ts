/** One view of a raw client: what it shows by the frames so far, and what it takes to have it back after a lost socket. */
import type { Sql } from 'postgres'
import type { Bbox, Id, Row, ServerMessage, SubscribeMessage } from '../../src/wire/messages.ts'
import { differences } from '../support/differences.ts'
import { truth } from '../support/truth.ts'
import type { TableName, UserClaims } from './model.ts'

export class RawView {
  /** Its name in the protocol, a new one for each subscription. */
  name = ''
  cursor: string | null = null
  /** Whether it holds what it held when the cursor came: then it comes back without a list. */
  isExact = false
  requested = 0
  #completed = -1
  #rows = new Map<Id, Row>()

  constructor(
    readonly table: TableName,
    public bbox: Bbox | null,
  ) {}

  get isComplete(): boolean {
    return this.#completed >= this.requested
  }

  /** The message that opens it anew, with what it holds if that can be built on. */
  subscribe(name: string): SubscribeMessage {
    const { table, bbox, cursor } = this
    this.name = name
    this.requested = 0
    this.#completed = -1
    const held = this.isExact ? {} : { held: [...this.#rows.keys()] }
    const resume = cursor === null ? null : { cursor, ...held }
    return { type: 'subscribe', sub: name, table, ...(bbox && { bbox }), ...(resume && { resume }) }
  }

  apply(frame: Extract<ServerMessage, { type: 'subscribed' | 'view' }>): void {
    if (frame.type === 'subscribed') {
      if (frame.resumed) return
      this.#rows = new Map()
      this.cursor = null
      return
    }
    for (const row of frame.rows ?? []) this.#rows.set(String(row.id), row)
    for (const id of frame.gone ?? []) this.#rows.delete(id)
    this.isExact = false
    this.remember(frame.cursor)
    this.#completed = frame.complete ?? this.#completed
  }

  remember(cursor: string | undefined): void {
    if (cursor === undefined) return
    this.cursor = cursor
    this.isExact = true
  }

  /** How it differs from what these claims may see, in words. */
  async differences(sql: Sql, claims: UserClaims): Promise<string[]> {
    const { table, bbox } = this
    const geometryColumn = bbox === null ? null : 'geom'
    const expected = await truth(sql, { ...claims }, { table, geometryColumn, bbox: bbox ?? undefined })
    return differences(expected, this.#rows, geometryColumn).map((difference) => `${table} ${difference}`)
  }
}
