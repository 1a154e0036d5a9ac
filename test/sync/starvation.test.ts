/** What one socket can take away from the others. Invariants 7, 9 and 10. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { backendKind } from '../support/backend.ts'
import { createWorld, EARTH, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { SlowSocket } from '../support/slow-socket.ts'
import { features } from '../support/table-spec.ts'
import { mintToken } from '../support/token.ts'

/** The embedded Postgres is one session: whatever runs there holds up everything, as docs/ARCHITECTURE.md says. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(2 * TEST_TIMEOUT_MS)
const alice = { sub: 'alice', org_id: 'a' }
const sloth = { sub: 'sloth', org_id: 'sloth' }
const policies = `
  create table switch (is_on boolean);
  grant select on switch to public;
  alter table features enable row level security;
  alter table features force row level security;
  create policy visible on features using (
    case when current_setting('datum.org_id', true) = 'sloth' and exists (select from switch where is_on)
      then pg_sleep(600) is null else true end
    and org_id in (current_setting('datum.org_id', true), 'public'))`

onServer('I9: one socket with sixteen subscriptions whose policy does not end ends nobody else', async () => {
  await using world = await createWorld({ tables: [features({ policies })] })
  const slow = await world.connect(sloth)
  for (let n = 0; n < 16; n++) await slow.subscribe({ sub: `s${n}`, bbox: ZURICH })
  const others = await Promise.all(Array.from({ length: 5 }, () => world.watch(alice)))
  await world.admin`insert into switch values (true)`
  const id = await world.put({ org: 'public', name: 'for both' })
  for (const { client, view } of others) {
    await client.until(() => view.rows.has(id) || view.ended !== null, 'the shared row')
    expect(view.ended).toBeNull()
  }
})

onServer('I9: six clients on a slow line do not keep a seventh from its view', async () => {
  await using world = await createWorld()
  await world.admin`insert into features (org_id, name, geom)
    select 'a', repeat(md5(n::text), 2000), st_setsrid(st_makepoint(8.5, 47.5), 4326) from generate_series(1, 2000) n`
  await world.put({ org: 'b', at: [8.5, 47.5] })
  const slow = await Promise.all(
    Array.from({ length: 6 }, async () => {
      // A frame of 256 KiB each quarter of a second: 8 Mbit/s.
      const socket: SlowSocket = await SlowSocket.open(world.server.url, () => {
        socket.pause()
        setTimeout(() => socket.resume(), 250)
      })
      socket.send({ type: 'auth', token: await mintToken(alice) })
      socket.send({ type: 'subscribe', sub: 's', bbox: EARTH })
      return socket
    }),
  )
  await Promise.all(slow.map((socket) => socket.until(() => socket.frames.length > 3, 'a slow line is busy')))
  const bob = await world.watch({ sub: 'bob', org_id: 'b' })
  expect(bob.view.rows.size).toBe(1)
  for (const socket of slow) socket.close()
})

onServer(
  'I7: a batch sent again while its first attempt waits for a lock is not rejected and then applied',
  async () => {
    await using world = await createWorld()
    const free = await world.put({ org: 'a', size: 0 })
    const locked = await Promise.all([1, 2, 3].map(() => world.put({ org: 'a', size: 0 })))
    const batch = crypto.randomUUID()
    const edits = [free, ...locked].map((id) => ({ op: 'update' as const, id, columns: { size: 1 } }))
    const outcome = await world.admin.begin(async (transaction) => {
      await transaction`select 1 from features where id = any(${locked}::uuid[]) for update`
      const first = await world.connect(alice)
      first.send({ type: 'write', batch, edits })
      await first.ping()
      await Bun.sleep(500)
      first.kill()
      const second = await world.connect(alice)
      const from = second.frames.length
      second.send({ type: 'write', batch, edits })
      return second.until(
        () =>
          second.frames.slice(from).find((frame) => frame.type === 'outcome' || frame.type === 'unavailable'),
        'an answer',
      )
    })
    // Whatever is still under way ends now.
    await Bun.sleep(3_000)
    const [row] = await world.admin`select size from features where id = ${free}`
    const said = outcome.type === 'outcome' ? outcome.edits[0]?.status : outcome.type
    expect({ said, size: row?.size }).not.toEqual({ said: 'rejected', size: 1 })
  },
)

onServer('I9: batches of one user that wait for a lock do not keep others from writing', async () => {
  await using world = await createWorld()
  const id = await world.put({ org: 'a', size: 0 })
  const edits = Array.from({ length: 20 }, () => ({ op: 'update' as const, id, columns: { size: 1 } }))
  const waiting = await Promise.all(Array.from({ length: 6 }, () => world.connect(alice)))
  await world.admin.begin(async (transaction) => {
    await transaction`select 1 from features where id = ${id} for update`
    for (const socket of waiting) socket.send({ type: 'write', batch: crypto.randomUUID(), edits })
    await Promise.all(waiting.map((socket) => socket.ping()))
    const bob = await world.connect({ sub: 'bob', org_id: 'b' })
    const { edits: outcomes } = await bob.write([{ op: 'insert', columns: { org_id: 'b' } }])
    expect(outcomes[0]?.status).toBe('applied')
    const answered = waiting.filter((socket) => socket.frames.some(({ type }) => type === 'outcome'))
    expect(answered).toHaveLength(0)
  })
  for (const socket of waiting) socket.kill()
})
