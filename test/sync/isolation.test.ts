/** One subscriber's policy that does not end, or a lock that is not given up, is that subscriber's trouble. Invariant 9. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

/** The embedded Postgres is one session: whatever runs there holds up everything, as docs/ARCHITECTURE.md says. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }
const sloth = { sub: 'sloth', org_id: 'sloth' }

/** Sleeps for one tenant, once the switch is on. */
const policies = `
  create table switch (is_on boolean);
  grant select on switch to public;
  alter table features enable row level security;
  alter table features force row level security;
  create policy visible on features using (
    case when current_setting('datum.org_id', true) = 'sloth' and exists (select from switch where is_on)
      then pg_sleep(600) is null else true end
    and org_id in (current_setting('datum.org_id', true), 'public'))`

onServer('I9: a policy that does not end ends its own subscription, and the others go on', async () => {
  await using world = await createWorld({ tables: [features({ policies })] })
  const slow = await world.watch(sloth)
  const { client, view } = await world.watch(alice, {
    allowed: ({ org_id }) => org_id === 'a' || org_id === 'public',
  })
  await world.admin`insert into switch values (true)`
  const id = await world.put({ org: 'public', name: 'for both' })
  await client.until(() => view.rows.has(id), 'the shared row')
  await slow.client.until(() => slow.view.ended !== null, 'the end of the one that waits')
  expect(slow.view.ended).toMatchObject({ code: 'timeout' })
  await world.barrier(client, alice)
})

onServer(
  'I9: writes that wait for a lock of the application hold up no reader and no other writer',
  async () => {
    await using world = await createWorld()
    const ids = await Promise.all(Array.from({ length: 5 }, () => world.put({ org: 'a', size: 0 })))
    const { client, view } = await world.watch(alice)
    const locked = world.admin.begin(async (transaction) => {
      await transaction`select 1 from features where id = any(${ids}::uuid[]) for update`
      const waiting = await Promise.all(ids.map(() => world.connect(alice)))
      const outcomes = waiting.map((socket, n) =>
        socket.write([{ op: 'update', id: ids[n] ?? '', columns: { size: 1 } }]),
      )
      // Another connection of the application writes, and a reader sees it, while five writes of one user wait.
      await world.barrier(client, alice)
      const fresh = await world.watch(alice, { bbox: ZURICH })
      expect(fresh.view.rows.size).toBe(view.rows.size)
      const other = await world.connect({ sub: 'bob', org_id: 'a' })
      const { edits } = await other.write([{ op: 'insert', columns: { org_id: 'a' } }])
      expect(edits[0]?.status).toBe('applied')
      return outcomes
    })
    for (const { edits } of await Promise.all(await locked)) expect(edits[0]?.status).toBe('applied')
  },
)
