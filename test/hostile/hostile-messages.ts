/**
 * Conversations that no client of ours would begin: messages of the protocol with one or more fields gone wrong, and
 * frames that are no messages at all. Text, as it goes over the wire.
 */
import fc, { type Arbitrary } from 'fast-check'
import { hostileGeometry, hostileJson, hostileString, object } from './hostile-json.ts'

export type Frame = string | Uint8Array<ArrayBuffer>

/** Names of columns: those of the table, those that every table has, and those that none has. */
const columnName = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.constantFrom(
      'id',
      'org_id',
      'name',
      'size',
      'doc',
      'tags',
      'amount',
      'at',
      'raw',
      'ratio',
      'geom',
    ),
  },
  { weight: 1, arbitrary: fc.constantFrom('ctid', 'xmin', 'tableoid', 'ORG_ID', 'nope', 'oid') },
  { weight: 1, arbitrary: hostileString },
)

/** Values that their columns take, so that Postgres has something to do. */
const fineColumn = fc.constantFrom<[string, string]>(
  ['org_id', '"b"'],
  ['name', '"fine"'],
  ['size', '7'],
  ['doc', '{"a":[1,{"b":null}]}'],
  ['tags', '["a","b,c",""]'],
  ['amount', '"12345678901234567890.123456789"'],
  ['amount', '12345678901234567890'],
  ['at', '"2024-02-29T12:00:00+02:00"'],
  ['raw', '"\\\\x00ff"'],
  ['ratio', '"NaN"'],
  ['geom', '{"type":"Point","coordinates":[8.5,47.5]}'],
  ['geom', '{"type":"Polygon","coordinates":[[[8,47],[9,47],[9,48],[8,47]]]}'],
)

const columnsText = fc
  .array(
    fc.oneof(
      { weight: 24, arbitrary: fineColumn },
      {
        weight: 2,
        arbitrary: fc.tuple(
          fc.constantFrom('name', 'doc', 'tags', 'org_id'),
          hostileString.map((text) => JSON.stringify(text)),
        ),
      },
      { weight: 2, arbitrary: fc.tuple(columnName, hostileJson) },
      { weight: 2, arbitrary: fc.tuple(fc.constant('doc'), hostileJson) },
      { weight: 4, arbitrary: fc.tuple(fc.constant('geom'), hostileGeometry) },
      { weight: 1, arbitrary: fc.constant<[string, string]>(['org_id', '"a"']) },
    ),
    { maxLength: 4 },
  )
  // A row of no organisation is nobody's, and would only be `forbidden`.
  .chain((members) =>
    fc.boolean().map((isOwn) => object(isOwn ? [...members, ['org_id', '"b"'] as const] : members)),
  )

/** The right thing mostly, so that what is wrong elsewhere gets a hearing. */
function mostly(right: Arbitrary<string>, wrong: Arbitrary<string> = hostileJson): Arbitrary<string> {
  return fc.oneof({ weight: 24, arbitrary: right }, { weight: 1, arbitrary: wrong })
}

/** A message with these fields; one may be missing and one too many be there. */
function message(type: string, fields: Record<string, Arbitrary<string>>): Arbitrary<string> {
  const names = Object.keys(fields)
  return fc
    .record({
      values: fc.tuple(...Object.values(fields)),
      left: fc.oneof(
        { weight: 30, arbitrary: fc.constant(-1) },
        { weight: 1, arbitrary: fc.nat(names.length) },
      ),
      more: fc.oneof(
        { weight: 30, arbitrary: fc.constant(null) },
        { weight: 1, arbitrary: fc.tuple(hostileString, hostileJson) },
      ),
    })
    .map(({ values, left, more }) =>
      object([
        ['type', JSON.stringify(type)],
        ...names.map((name, index) => [name, values[index]!] as const).filter((_, index) => index !== left),
        ...(more === null ? [] : [more]),
      ]),
    )
}

/** Ids and names that the conversation's messages share, so that they meet. */
export interface Known {
  /** Rows that exist: the sender's, and another tenant's. */
  readonly ids: readonly string[]
  /** Batches, of the sender's own and of another user. */
  readonly batches: readonly string[]
}

/** A frame as it is sent behind a valid token. */
export function hostileFrame(known: Known): Arbitrary<Frame> {
  const text = hostileString.map((value) => JSON.stringify(value))
  const sub = mostly(fc.constantFrom('"s1"', '"s2"', '"__proto__"', '"constructor"', '"\\ud800"'), text)
  const table = mostly(fc.constantFrom('"features"', '"features"', '"public.features"'), text)
  const degrees = fc.oneof(
    fc.constantFrom('8', '9', '47', '48', '-180', '180', '90', '-90', '0', '-0'),
    fc.constantFrom('181', '-91', '180.00000001', '1e-320', '89.99999999999999'),
    fc.constantFrom('1e999', 'null', '"8"'),
  )
  const bbox = fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom('[8,47,9,48]', '[-180,-90,180,90]', '[179,-20,-179,-15]') },
    {
      weight: 2,
      arbitrary: fc.array(degrees, { minLength: 4, maxLength: 4 }).map((all) => `[${all.join(',')}]`),
    },
    { weight: 1, arbitrary: hostileJson },
  )
  const id = mostly(
    fc.constantFrom(...known.ids).map((value) => JSON.stringify(value)),
    text,
  )
  const batch = mostly(
    fc.oneof(fc.constantFrom(...known.batches), fc.uuid()).map((value) => JSON.stringify(value)),
    text,
  )
  const edit = fc.oneof(
    {
      weight: 3,
      arbitrary: message('insert', { op: fc.constant('"insert"'), columns: columnsText }).map(withoutType),
    },
    {
      weight: 3,
      arbitrary: message('update', { op: fc.constant('"update"'), id, columns: mostly(columnsText) }).map(
        withoutType,
      ),
    },
    { weight: 1, arbitrary: message('delete', { op: fc.constant('"delete"'), id }).map(withoutType) },
    { weight: 1, arbitrary: hostileJson },
  )
  const cursor = fc.oneof(
    text,
    fc.constantFrom(
      '"0123456789ab/1:1:"',
      '"0123456789ab/9223372036854775807:9223372036854775807:"',
      '"0123456789ab/5:3:9,1"',
      `"0123456789ab/1:2:${'1,'.repeat(20_000)}1"`,
    ),
  )
  const resume = fc
    .tuple(
      cursor,
      fc.oneof(
        fc.array(id, { maxLength: 5 }).map((ids) => `[${ids.join(',')}]`),
        hostileJson,
      ),
    )
    .map(([at, held]) =>
      object([
        ['cursor', at],
        ['held', held],
      ]),
    )
  return fc.oneof(
    { weight: 9, arbitrary: message('subscribe', { sub, table, bbox }) },
    { weight: 5, arbitrary: message('subscribe', { sub, bbox, resume: mostly(resume) }) },
    {
      weight: 40,
      arbitrary: message('write', {
        batch,
        edits: mostly(
          fc
            .oneof(
              {
                weight: 5,
                arbitrary: fc.array(wellFormed(edit, id, columnsText), { minLength: 1, maxLength: 4 }),
              },
              { weight: 1, arbitrary: fc.array(edit, { minLength: 1, maxLength: 3 }) },
            )
            .map((edits) => `[${edits.join(',')}]`),
        ),
      }),
    },
    {
      weight: 4,
      arbitrary: message('bbox', { sub, seq: fc.oneof(fc.nat().map(String), hostileJson), bbox }),
    },
    { weight: 3, arbitrary: message('unsubscribe', { sub }) },
    { weight: 1, arbitrary: message('auth', { token: text }) },
    { weight: 1, arbitrary: garbage },
  )
}

/** Edits of the right shape, whose values are what is wrong with them: these get as far as Postgres. */
function wellFormed(
  edit: Arbitrary<string>,
  id: Arbitrary<string>,
  columns: Arbitrary<string>,
): Arbitrary<string> {
  return fc.oneof(
    {
      weight: 4,
      arbitrary: columns.map((text) =>
        object([
          ['op', '"insert"'],
          ['columns', text],
        ]),
      ),
    },
    {
      weight: 4,
      arbitrary: fc.tuple(id, columns).map(([row, text]) =>
        object([
          ['op', '"update"'],
          ['id', row],
          ['columns', text],
        ]),
      ),
    },
    {
      weight: 1,
      arbitrary: id.map((row) =>
        object([
          ['op', '"delete"'],
          ['id', row],
        ]),
      ),
    },
    { weight: 1, arbitrary: edit },
  )
}

/** What is no message, as text or as bytes. */
export const garbage: Arbitrary<Frame> = fc.oneof(
  hostileJson,
  hostileString,
  fc.string({ unit: 'binary', maxLength: 200 }),
  fc.uint8Array({ maxLength: 100 }).map((bytes) => new Uint8Array(bytes)),
  fc.constantFrom(
    '{"type":"ping"',
    '{"type":"ping","type":"ping"} ',
    '{"__proto__":{"type":"ping"}}',
    '{"type":{"toString":"ping"}}',
    '{"type":["ping"]}',
    '['.repeat(100_000),
    `${'['.repeat(200_000)}${']'.repeat(200_000)}`,
    `${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}`,
    `"${'\\ud800'.repeat(1_000)}"`,
    `{"type":"subscribe","sub":"s","bbox":[0,0,1,1],"resume":{"cursor":"x","held":[${'"x",'.repeat(100_000)}"x"]}}`,
  ),
)

/** {@link message} begins with a type, which edits do not have. */
function withoutType(text: string): string {
  return text.replace(/^\{"type":"[a-z]+",?/, '{')
}
