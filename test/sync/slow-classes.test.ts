/** Policies that take long, and what they may cost others: the first read, once. Invariants 8 and 9. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { install } from '../../src/db/install.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { APP_ROLE } from '../support/postgres.ts'
import { features } from '../support/table-spec.ts'

/** The embedded Postgres is one session: whatever runs there holds up everything, as docs/ARCHITECTURE.md says. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(2 * TEST_TIMEOUT_MS)

/** Sleeps for so long for every `sloth…`, once the switch says for how long. */
const policies = `
  create table switch (seconds integer);
  grant select on switch to public;
  alter table features enable row level security;
  alter table features force row level security;
  create policy visible on features using (
    case when current_setting('datum.org_id', true) like 'sloth%'
      then (select pg_sleep(coalesce(max(seconds), 0)) is not null from switch) else true end
    and org_id in (current_setting('datum.org_id', true), 'public'))`

/** One socket each. Those of one organisation have the same token, and so are of one class. */
const watchAll = (world: World, orgs: readonly string[]) => {
  const exp = Math.floor(Date.now() / 1000) + 3600
  return Promise.all(orgs.map((org_id) => world.watch({ sub: org_id, org_id, exp })))
}

onServer(
  'I9: more policies that do not end than there are connections to read with hold up nobody else, and all of them end',
  async () => {
    await using world = await createWorld({ tables: [features({ policies })] })
    const sloths = await watchAll(world, ['sloth 1', 'sloth 2', 'sloth 3', ...Array(9).fill('sloth')])
    const others = await watchAll(world, ['a', 'b', 'c', 'd', 'e'])
    await world.admin`insert into switch values (600)`
    for (let n = 0; n < 3; n++) {
      const id = await world.put({ org: 'public' })
      for (const { client, view } of others) await client.until(() => view.rows.has(id), `row ${n}`)
    }
    const fresh = await world.watch({ sub: 'fresh', org_id: 'a' })
    expect(fresh.view.rows.size).toBe(3)
    // All of it while the policies run: the first of them is cancelled after fifteen seconds only.
    expect(sloths.filter(({ view }) => view.ended !== null)).toEqual([])
    for (const { client, view } of sloths) {
      await client.until(() => view.ended !== null, 'the end of one that waits')
      expect(view.ended?.code).toBe('timeout')
    }
    for (const { view } of others) expect(view.ended).toBeNull()
  },
)

onServer(
  'I9: many who ask for a view under policies that do not end do not keep others from theirs',
  async () => {
    await using world = await createWorld({ tables: [features({ policies })] })
    const id = await world.put({ org: 'public' })
    await world.admin`insert into switch values (600)`
    const sloths = await Promise.all(
      Array.from({ length: 16 }, (_, n) => world.connect({ sub: `sloth ${n}`, org_id: `sloth ${n}` })),
    )
    const waiting = sloths.map((socket) => socket.startSubscribe({ bbox: ZURICH }))
    for (const socket of sloths) await socket.ping()
    for (let n = 0; n < 4; n++) {
      const { view } = await world.watch({ sub: `other ${n}`, org_id: 'a' })
      expect([...view.rows.keys()]).toEqual([id])
    }
    expect(waiting.filter(({ ended }) => ended !== null)).toEqual([])
  },
)

onServer('I4: a view that is slow from beginning to end comes whole all the same', async () => {
  await using world = await createWorld({
    tables: [
      features({
        policies: `alter table features enable row level security; alter table features force row level security;
          create policy p on features using (org_id = current_setting('datum.org_id', true)
            and (name is distinct from 'slow' or pg_sleep(0.15) is not null))`,
      }),
    ],
    start: false,
  })
  await install(world.admin, { tables: world.config.tables, role: APP_ROLE })
  // The first run of rows is quick, those after it are not.
  await world.admin`insert into features (org_id, name, geom)
    select 'a', case when n > 1000 then 'slow' end, st_setsrid(st_makepoint(8.5, 47.5), 4326) from generate_series(1, 1016) n`
  // After that, so that the feed has nothing to say of them.
  await world.addServer()
  const { client, view } = await world.watch({ sub: 'sloth', org_id: 'a' })
  expect(view.ended).toBeNull()
  await world.untilTrue(client, view, { org_id: 'a' })
  // Gone on with where it was interrupted, not begun anew.
  expect(view.rowsReceived).toBeLessThan(1_500)
})

onServer('I4: a policy that is slow and ends is waited for, and its subscription goes on', async () => {
  await using world = await createWorld({ tables: [features({ policies })] })
  const sloth = await world.watch({ sub: 'sloth', org_id: 'sloth' })
  const other = await world.watch({ sub: 'other', org_id: 'a' })
  await world.admin`insert into switch values (4)`
  const early = await world.put({ org: 'public' })
  await other.client.until(() => other.view.rows.has(early), 'the others have it')
  expect(sloth.view.rows.has(early)).toBe(false)
  await sloth.client.until(() => sloth.view.rows.has(early), 'and the slow one, too')
  await world.admin`delete from switch`
  const late = await world.put({ org: 'public' })
  await sloth.client.until(() => sloth.view.rows.has(late), 'as quick as any again')
  expect(sloth.view.ended).toBeNull()
})

for (const [what, error] of [
  ['is told to be cancelled', `raise exception 'no' using errcode = '57014'`],
  ['fails an assertion', `assert false`],
] as const)
  onServer(`I8: a policy that ${what}, which no exception block catches, ends its own only`, async () => {
    await using world = await createWorld({
      before: `create function trouble(org text) returns boolean language plpgsql stable as $$
        begin if org = 'sloth' and exists (select from public.switch) then ${error}; end if; return true; end $$`,
      tables: [
        features({
          policies: `create table switch (is_on boolean); grant select on switch to public;
            alter table features enable row level security; alter table features force row level security;
            create policy p on features using (org_id in (current_setting('datum.org_id', true), 'public')
              and trouble(current_setting('datum.org_id', true)))`,
        }),
      ],
    })
    const culprit = await world.watch({ sub: 'sloth', org_id: 'sloth' })
    const other = await world.watch({ sub: 'other', org_id: 'a' })
    await world.admin`insert into switch values (true)`
    for (let n = 0; n < 3; n++) {
      const id = await world.put({ org: 'public' })
      await other.client.until(() => other.view.rows.has(id), `row ${n}`)
    }
    await culprit.client.until(() => culprit.view.ended !== null, 'it ended')
    expect(other.view.ended).toBeNull()
  })

onServer('I9: edits whose policies do not end keep no other user from writing', async () => {
  await using world = await createWorld({
    tables: [
      features({
        policies: `alter table features enable row level security; alter table features force row level security;
          create policy p on features using (org_id = current_setting('datum.org_id', true)
            and (current_setting('datum.org_id', true) <> 'sloth' or pg_sleep(600) is not null))`,
      }),
    ],
  })
  const edits = [{ op: 'insert', columns: { org_id: 'sloth' } }] as const
  const sloths = await Promise.all(
    Array.from({ length: 6 }, (_, n) => world.connect({ sub: `sloth ${n}`, org_id: 'sloth' })),
  )
  for (const socket of sloths) socket.send({ type: 'write', batch: crypto.randomUUID(), edits })
  for (const socket of sloths) await socket.ping()
  const bob = await world.connect({ sub: 'bob', org_id: 'b' })
  for (let n = 0; n < 3; n++) {
    const outcome = await bob.write([{ op: 'insert', columns: { org_id: 'b' } }])
    expect(outcome.edits[0]?.status).toBe('applied')
  }
  // None of the others had its outcome by then: that comes at the edit's time limit.
  expect(sloths.flatMap(({ frames }) => frames.filter(({ type }) => type === 'outcome'))).toEqual([])
  for (const socket of sloths)
    expect((await socket.next('outcome')).edits[0]).toMatchObject({ status: 'rejected', code: 'timeout' })
})
