/**
 * From a frame to a message, or to the reason why it is none. Server only: the shapes are in messages.ts, and this is
 * their check at the door (zod), so that nothing behind it meets a surprise.
 */
import { z } from 'zod'
import { EDITS_PER_BATCH_MAX, ID_LENGTH_MAX, NESTING_MAX, ROWS_PER_SUBSCRIPTION_MAX } from './limits.ts'
import type { ClientMessage, Json, Row } from './messages.ts'

/** The frame is not a message of this protocol. The text names what is wrong and repeats no value. */
export class BadMessage extends Error {}

const name = z.string().min(1).max(ID_LENGTH_MAX)
const id = z.string().max(ID_LENGTH_MAX)
// Which numbers make a box is for the session to say, in an answer to that subscription.
const bbox = z.tuple([z.number(), z.number(), z.number(), z.number()])
// What JSON.parse made is JSON; only that it is an object is left to check.
const columns = z.custom<Row>(
  (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
  'must be an object',
)

const edit = z.discriminatedUnion('op', [
  z.strictObject({ op: z.literal('insert'), columns }),
  z.strictObject({ op: z.literal('update'), id, columns }),
  z.strictObject({ op: z.literal('delete'), id }),
])

const clientMessage = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('auth'), token: z.string() }),
  z.strictObject({
    type: z.literal('subscribe'),
    sub: name,
    table: name.exactOptional(),
    bbox: bbox.exactOptional(),
    resume: z
      .strictObject({ cursor: z.string(), held: z.array(id).max(ROWS_PER_SUBSCRIPTION_MAX).optional() })
      .exactOptional(),
  }),
  z.strictObject({ type: z.literal('bbox'), sub: name, seq: z.int().positive(), bbox }),
  z.strictObject({ type: z.literal('unsubscribe'), sub: name }),
  z.strictObject({
    type: z.literal('write'),
    batch: z.uuid(),
    table: name.exactOptional(),
    edits: z.array(edit).min(1).max(EDITS_PER_BATCH_MAX),
  }),
  z.strictObject({ type: z.literal('ping') }),
])

/** Throws {@link BadMessage}. */
export function decodeClientMessage(frame: string): ClientMessage {
  let value: Json
  try {
    value = JSON.parse(frame) as Json
  } catch {
    throw new BadMessage('a frame must be one JSON object')
  }
  checkValue(value, NESTING_MAX)
  const result = clientMessage.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const path = issue?.path.map(String).join('.').slice(0, 80) ?? ''
  throw new BadMessage(`${path === '' ? 'message' : path}: ${issue?.code ?? 'not understood'}`)
}

function checkValue(value: Json, levels: number): void {
  // 1e999 is a number in JSON and none here: it would go on as null.
  if (typeof value === 'number' && !Number.isFinite(value)) throw new BadMessage('a number is out of range')
  if (typeof value !== 'object' || value === null) return
  if (levels === 0) throw new BadMessage(`JSON may be nested ${NESTING_MAX} deep`)
  // `Object.values` of an array of a million elements takes most of a second, where the array itself takes milliseconds.
  for (const inner of Array.isArray(value) ? value : Object.values(value)) checkValue(inner, levels - 1)
}
