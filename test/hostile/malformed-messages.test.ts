/** What no well-behaved client sends: it ends the sender's socket and nothing else. Invariants 8 and 9. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { CloseCode } from '../../src/wire/close-codes.ts'
import { FRAME_BYTES_MAX, ID_LENGTH_MAX, SUBSCRIPTIONS_PER_SOCKET_MAX } from '../../src/wire/limits.ts'
import type { Bbox } from '../../src/wire/messages.ts'
import { createWorld, point, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const uuid = '7b0e9d3c-51f1-4d2b-9a63-0e0a4b6f2c11'
const subscribe = (fields: object) => JSON.stringify({ type: 'subscribe', sub: 's', ...fields })
const write = (fields: object) => JSON.stringify({ type: 'write', batch: uuid, ...fields })

const HOSTILE: Record<string, string | Uint8Array<ArrayBuffer>> = {
  'not JSON': '{',
  'an array': '[{"type":"ping"}]',
  'no type': '{}',
  'an unknown type': '{"type":"drop"}',
  'a type of the prototype': '{"type":"constructor"}',
  'a server message': '{"type":"authenticated","expiresAt":null}',
  'a binary frame': new Uint8Array([1, 2, 3]),
  'a field too many': '{"type":"ping","extra":1}',
  'sub that is a number': '{"type":"subscribe","sub":1}',
  'sub that is empty': subscribe({ sub: '', bbox: ZURICH }),
  'sub that is too long': subscribe({ sub: 'x'.repeat(ID_LENGTH_MAX + 1), bbox: ZURICH }),
  'bbox of three': subscribe({ bbox: [1, 2, 3] }),
  'bbox of texts': subscribe({ bbox: ['1', '2', '3', '4'] }),
  'bbox with a null': subscribe({ bbox: [0, 0, 1, null] }),
  'bbox with 1e999': '{"type":"subscribe","sub":"s","bbox":[0,0,1,1e999]}',
  'held that is no list': subscribe({ bbox: ZURICH, resume: { cursor: 'x', held: 'x' } }),
  'held of numbers': subscribe({ bbox: ZURICH, resume: { cursor: 'x', held: [1] } }),
  'batch that is no UUID': write({ batch: 'x', edits: [] }),
  'edits missing': write({}),
  'no edits': write({ edits: [] }),
  'an edit without op': write({ edits: [{ id: 'x', columns: {} }] }),
  'an edit with an unknown op': write({ edits: [{ op: 'upsert', id: 'x', columns: {} }] }),
  'an update without id': write({ edits: [{ op: 'update', columns: {} }] }),
  'columns that is a list': write({ edits: [{ op: 'insert', columns: [] }] }),
  'seq that is negative': '{"type":"bbox","sub":"s","seq":-1,"bbox":[0,0,1,1]}',
  'seq that is a fraction': '{"type":"bbox","sub":"s","seq":1.5,"bbox":[0,0,1,1]}',
  'a lone surrogate in a type': '{"type":"\\ud800"}',
}

test('I9: a frame that is no message closes its sender with 4400 and nobody else', async () => {
  await using world = await createWorld()
  const bystander = await world.watch(alice)
  for (const [what, frame] of Object.entries(HOSTILE)) {
    const client = await world.connect(alice)
    client.sendRaw(frame)
    const { code } = await client.untilClosed()
    expect(`${what}: ${code}`).toBe(`${what}: ${CloseCode.badMessage}`)
    expect(client.frames.at(-1)).toMatchObject({ type: 'error', code: CloseCode.badMessage })
  }
  await world.barrier(bystander.client, alice)
})

test('I9: what a hostile frame says is not echoed', async () => {
  await using world = await createWorld()
  const client = await world.connect(alice)
  client.sendRaw('{"type":"subscribe","sub":"s","bbox":"<script>secret-token</script>"}')
  const { reason } = await client.untilClosed()
  expect(JSON.stringify(client.frames) + reason).not.toContain('secret-token')
})

test('I10: an outcome does not grow with what its edits made up', async () => {
  await using world = await createWorld()
  const client = await world.connect(alice)
  const columns = { ['x'.repeat(1_000_000)]: 1 }
  const { edits } = await client.write([
    { op: 'insert', columns },
    { op: 'update', id: uuid, columns },
    { op: 'insert', columns: { nope: 1 } },
  ])
  expect(edits.map((edit) => edit.status === 'rejected' && edit.code)).toEqual([
    'invalid',
    'invalid',
    'invalid',
  ])
  expect(JSON.stringify(edits).length).toBeLessThan(1_000)
  expect(JSON.stringify(edits[2])).toContain('nope')
})

test('I9: nobody can make a row whose id no message may name', async () => {
  await using world = await createWorld({ tables: [features({ id: 'text' })] })
  const { client, view } = await world.watch(alice)
  const insert = (length: number) =>
    client.write([{ op: 'insert', columns: { id: 'x'.repeat(length), org_id: 'a', geom: point(8.5, 47.5) } }])
  expect((await insert(ID_LENGTH_MAX + 1)).edits).toMatchObject([{ status: 'rejected', code: 'invalid' }])
  expect((await insert(ID_LENGTH_MAX)).edits).toMatchObject([{ status: 'applied' }])
  await client.until(() => view.rows.size === 1, 'the row')
})

test('a box that is none ends its subscription, at first and when it is moved', async () => {
  await using world = await createWorld()
  const client = await world.connect(alice)
  const boxes: Bbox[] = [
    [0, -91, 1, 1],
    [0, 10, 1, 5],
    [-181, 0, 1, 1],
    [0, 0, 180.5, 1],
  ]
  for (const bbox of boxes) {
    expect((await client.subscribe({ bbox })).ended?.code).toBe('invalid')
    const view = await client.subscribe({ bbox: ZURICH })
    await client.setBbox('s', 1, bbox)
    expect(view.ended?.code).toBe('invalid')
  }
})

test('I10: a frame beyond the limit closes with 4413', async () => {
  await using world = await createWorld()
  const client = await world.connect(alice)
  client.sendRaw(JSON.stringify({ type: 'ping', padding: 'x'.repeat(FRAME_BYTES_MAX) }))
  expect((await client.untilClosed()).code).toBe(CloseCode.tooLarge)
})

test('a name in use is no second subscription; a free one is', async () => {
  await using world = await createWorld()
  await world.put({ org: 'a' })
  const { client } = await world.watch(alice)
  client.unsubscribe('s')
  expect((await client.subscribe({ bbox: ZURICH })).rows.size).toBe(1)
  client.send({ type: 'subscribe', sub: 's', bbox: ZURICH })
  expect((await client.untilClosed()).code).toBe(CloseCode.badMessage)
})

test('bbox and unsubscribe of a subscription that has ended or never was are harmless', async () => {
  await using world = await createWorld()
  const client = await world.connect(alice)
  client.send({ type: 'unsubscribe', sub: 'never' })
  client.send({ type: 'bbox', sub: 'never', seq: 1, bbox: ZURICH })
  const view = await client.subscribe({ bbox: ZURICH, table: 'nonsense' })
  expect(view.ended?.code).toBe('unknown_table')
  client.send({ type: 'bbox', sub: 's', seq: 1, bbox: ZURICH })
  client.send({ type: 'unsubscribe', sub: 's' })
  await client.ping()
  expect((await client.subscribe({ bbox: ZURICH })).ended).toBeNull()
})

test('I10: subscriptions beyond the limit end with too_many_subscriptions', async () => {
  await using world = await createWorld()
  const client = await world.connect(alice)
  for (let n = 0; n < SUBSCRIPTIONS_PER_SOCKET_MAX; n++)
    expect((await client.subscribe({ sub: `s${n}`, bbox: ZURICH })).ended).toBeNull()
  expect((await client.subscribe({ sub: 'more', bbox: ZURICH })).ended?.code).toBe('too_many_subscriptions')
  client.unsubscribe('s0')
  expect((await client.subscribe({ sub: 'more', bbox: ZURICH })).ended).toBeNull()
})

test('tables that are not served are unknown, whether they exist or not', async () => {
  await using world = await createWorld()
  const client = await world.connect(alice)
  const messages = new Set<string>()
  for (const table of [
    'nonsense',
    'spatial_ref_sys',
    'pg_catalog.pg_class',
    'datum.change',
    'features; drop table features',
  ])
    messages.add(
      (await client.subscribe({ sub: table, table, bbox: ZURICH })).ended!.message.replaceAll(table, '…'),
    )
  expect(messages.size).toBe(1)
  const { edits } = await client.write([{ op: 'delete', id: '1' }], { table: 'spatial_ref_sys' })
  expect(edits).toMatchObject([{ status: 'rejected', code: 'invalid' }])
})

test('I9: sockets that leave in the middle of everything leave the server well', async () => {
  await using world = await createWorld()
  const stayer = await world.watch(alice)
  for (let n = 0; n < 30; n++) {
    const client = await world.connect(alice)
    client.startSubscribe({ bbox: ZURICH })
    client.send({
      type: 'write',
      batch: crypto.randomUUID(),
      edits: [{ op: 'insert', columns: { org_id: 'a', size: n } }],
    })
    if (n % 3 === 0) await client.next('subscribed')
    client.kill()
  }
  await world.barrier(stayer.client, alice)
  await world.untilTrue(stayer.client, stayer.view, alice)
})
