/** What the application does to its own tables works as it did before datum, whatever it writes. Invariant 11. */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { install } from '../../src/db/install.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, EARTH, point, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

/** For what changes roles and rights: the embedded database is its owner's alone. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

const alice = { sub: 'alice', org_id: 'a' }
const IN_ZURICH = `st_setsrid(st_makepoint(8.5, 47.5), 4326)`

/** Runs statements of one transaction as a role that has rights on the table and has never heard of datum. */
async function asWriter(world: World, settings: string, statements: string): Promise<void> {
  await world.admin.begin(async (tx) => {
    await tx.unsafe(`
      do $$ begin create role app_writer; exception when duplicate_object then null; end $$;
      grant usage on schema public to app_writer; grant select, insert, update, delete, truncate on features to app_writer;
      set local role app_writer; ${settings}`)
    await tx.unsafe(statements)
    await tx.unsafe('reset role')
  })
}

/**
 * Gives the table to a role of its own, has a superuser run `setup`, does the work, and takes the role away.
 */
async function withLoneOwner(world: World, work: () => Promise<void>): Promise<void> {
  await world.admin.unsafe(`
    do $$ begin create role lone_owner; exception when duplicate_object then null; end $$;
    grant create, usage on schema public to lone_owner; alter table features owner to lone_owner`)
  await install(world.admin, { tables: world.config.tables, role: 'datum_app' })
  try {
    await work()
  } finally {
    await world.admin.unsafe('drop owned by lone_owner cascade; drop role lone_owner')
  }
}

describe('another role of the application', () => {
  const open = `alter table features enable row level security;
    create policy p on features using (true)`

  test('I11: writes without any right on datum’s own tables, and is seen', async () => {
    await using world = await createWorld({ tables: [features({ policies: open })] })
    const { client, view } = await world.watch(alice)
    await asWriter(
      world,
      '',
      `insert into features (name, geom) values ('one', ${IN_ZURICH}), ('two', ${IN_ZURICH})`,
    )
    await client.until(() => view.rows.size === 2, 'inserted')
    await asWriter(
      world,
      '',
      `update features set name = upper(name); delete from features where name = 'ONE'`,
    )
    await client.until(
      () => [...view.rows.values()].map((row) => row.name).join() === 'TWO',
      'updated and deleted',
    )
    await asWriter(world, '', 'truncate features')
    await client.until(() => view.rows.size === 0, 'truncated')
  })

  test('I11: writes with an empty search_path, and with a hostile one', async () => {
    await using world = await createWorld({
      before: `drop schema if exists hostile cascade; create schema hostile;
        create function hostile.st_transform(public.geometry, integer) returns public.geometry language plpgsql as
          $$ begin raise exception 'hostile'; end $$;
        create function hostile.now() returns timestamptz language plpgsql as $$ begin raise exception 'hostile'; end $$;
        create table hostile.change (xid xid8, rel oid, id text, old_box box, new_box box);
        grant usage on schema hostile to public; grant all on hostile.change to public`,
      tables: [features({ policies: open })],
    })
    const { client, view } = await world.watch(alice)
    const insert = `insert into public.features (name, geom) values ('x', 'SRID=4326;POINT(8.5 47.5)'::public.geometry)`
    await asWriter(world, `set local search_path = ''`, insert)
    await asWriter(world, `set local search_path = hostile, pg_catalog, public`, insert)
    await client.until(() => view.rows.size === 2, 'both are seen')
    expect(await world.admin`select 1 from hostile.change`).toHaveLength(0)
  })

  onServer(
    'I4: writes to a table of another owner than who ran `setup` are logged by row, and ring',
    async () => {
      await using world = await createWorld({ tables: [features({ policies: open })] })
      await withLoneOwner(world, async () => {
        const rung = Promise.withResolvers<void>()
        const listening = await world.admin.listen('datum', () => rung.resolve())
        // As a server holds it that sleeps.
        const sleeper = await world.admin.reserve()
        await sleeper.unsafe(`select pg_advisory_lock_shared(7233190524228887916)`)
        await asWriter(world, '', `insert into features (name, geom) values ('one', ${IN_ZURICH})`)
        await rung.promise
        sleeper.release()
        await listening.unlisten()
        const entries = await world.admin`select id from datum.change where rel = 'features'::regclass`
        expect(entries.length).toBeGreaterThan(0)
        expect(entries.every(({ id }) => id !== null)).toBe(true)
        // Nor may the owner write entries that stay for ever.
        const [may] = await world.admin`
        select has_function_privilege('lone_owner', 'datum.tidy(bigint)', 'execute') as tidy,
               has_column_privilege('lone_owner', 'datum.change', 'xid', 'insert') as xid`
        expect(may).toEqual({ tidy: true, xid: false })
      })
    },
  )

  onServer(
    'I11: writes where the triggers lost every right, as in a dump restored without privileges',
    async () => {
      await using world = await createWorld({ tables: [features({ policies: open })] })
      await withLoneOwner(world, async () => {
        await world.admin.unsafe(`revoke all on all functions in schema datum from lone_owner, public;
          revoke all on all tables in schema datum from lone_owner; revoke all on schema datum from public`)
        const one = `('one', ${IN_ZURICH})`
        await asWriter(world, '', `insert into features (name, geom) values ${one}`)
        // Enough for each to have its turn at what happens to one row in a thousand.
        await asWriter(world, '', `insert into features (name, geom) values ${Array(2_000).fill(one).join()}`)
        await asWriter(world, '', `update features set name = 'two'`)
        await asWriter(world, '', `delete from features where name = 'one'`)
        expect(await world.admin`select from features where name = 'two'`).toHaveLength(2_001)
        await asWriter(world, '', 'truncate features')
      })
    },
  )

  test('I11: no operator of the writer’s own runs as the owner of the table', async () => {
    await using world = await createWorld({
      before: `drop schema if exists hostile cascade; create schema hostile; grant usage on schema hostile to public;
        create table hostile.ran (as_role name); grant all on hostile.ran to public;
        create function hostile.equal(integer, integer) returns boolean language plpgsql as
          $$ begin insert into hostile.ran values (current_user); return true; end $$;
        create operator hostile.= (leftarg = integer, rightarg = integer, function = hostile.equal)`,
      tables: [features({ policies: open })],
    })
    const { client, view } = await world.watch(alice)
    await asWriter(
      world,
      'set local search_path = hostile, pg_catalog, public',
      `insert into public.features (name, geom) values ('x', 'SRID=4326;POINT(8.5 47.5)'::public.geometry);
       update public.features set name = 'y'; delete from public.features where name = 'z'`,
    )
    await client.until(() => [...view.rows.values()].some((row) => row.name === 'y'), 'seen')
    expect(await world.admin`select as_role from hostile.ran`).toHaveLength(0)
  })

  test('I11: a change that the log does not take fails no write, and is seen', async () => {
    await using world = await createWorld({ tables: [features({ id: 'text', policies: open })] })
    const { client, view } = await world.watch(alice)
    try {
      await world.admin`alter table datum.change add constraint of_a_test check (id <> 'unloggable') not valid`
      await asWriter(world, '', `insert into features (id, geom) values ('unloggable', ${IN_ZURICH})`)
      await client.until(() => view.rows.has('unloggable'), 'seen all the same')
      await world.admin`alter table datum.change add constraint nothing_at_all check (false) not valid`
      await asWriter(world, '', `update features set name = 'written'`)
      expect(await world.admin`select name from features`).toMatchObject([{ name: 'written' }])
    } finally {
      // The embedded database, and its log, is that of the other tests, too.
      await world.admin`alter table datum.change drop constraint if exists of_a_test, drop constraint if exists nothing_at_all`
    }
  })

  for (const isolation of ['read committed', 'repeatable read', 'serializable'])
    test(`I11: writes in a ${isolation} transaction`, async () => {
      await using world = await createWorld({ tables: [features({ policies: open })] })
      const { client, view } = await world.watch(alice)
      await world.admin.begin(async (tx) => {
        await tx.unsafe(`set transaction isolation level ${isolation}`)
        await tx.unsafe(`insert into features (name, geom) values ('x', ${IN_ZURICH})`)
        await tx.unsafe(`update features set name = 'y'`)
      })
      await client.until(() => [...view.rows.values()].some((row) => row.name === 'y'), 'seen')
    })
})

describe('geometries of every kind', () => {
  const ODD: Record<string, string> = {
    'not a number': `'POINT(NaN NaN)'`,
    infinite: `st_makepoint('Infinity', 1)`,
    'infinite on both sides': `st_makeline(st_makepoint('-Infinity', 0), st_makepoint('Infinity', 0))`,
    'beyond the poles': `'POINT(8.5 1000)'`,
    'beyond the antimeridian': `'POINT(500 47.5)'`,
    huge: `'POINT(1e300 -1e300)'`,
    arc: `'CIRCULARSTRING(8 47, 8.5 47.5, 9 47)'`,
    'curve polygon': `'CURVEPOLYGON(CIRCULARSTRING(8 47, 8.5 47.5, 9 47, 8.5 47.1, 8 47))'`,
    triangle: `'TRIANGLE((8 47, 9 47, 9 48, 8 47))'`,
    tin: `'TIN(((8 47, 9 47, 9 48, 8 47)))'`,
    polyhedron: `'POLYHEDRALSURFACE Z(((8 47 0, 8 48 0, 9 48 0, 8 47 0)))'`,
    'self-crossing': `'POLYGON((8 47, 9 48, 9 47, 8 48, 8 47))'`,
    measured: `'POINT ZM(8.5 47.5 3 4)'`,
    'empty collection': `'GEOMETRYCOLLECTION(POINT EMPTY, LINESTRING EMPTY)'`,
    'partly empty': `'GEOMETRYCOLLECTION(POINT EMPTY, POINT(8.5 47.5))'`,
  }
  for (const [type, srid] of [
    ['geometry', 4326],
    ['geometry', 3857],
    ['geometry', 2056],
    ['geometry', 0],
    ['geometry', 999_001],
  ] as const)
    test(`I11: are written, changed and deleted in SRID ${srid}, and harm no other row`, async () => {
      await using world = await createWorld({ tables: [features({ geometry: type })] })
      const good = await world.put({ org: 'a', name: 'good' })
      const { client, view } = await world.watch(alice)
      for (const [name, sql] of Object.entries(ODD))
        await world.admin.unsafe(
          `insert into features (org_id, name, geom) values ('a', '${name}', st_setsrid((${sql})::geometry, ${srid}))`,
        )
      await world.admin`update features set size = 1`
      await client.until(
        () => view.ended !== null || view.rows.get(good)?.size === 1,
        'the good row is updated',
      )
      expect(view.ended).toBeNull()
      const fresh = await world.watch(alice, { bbox: EARTH })
      expect(fresh.view.ended).toBeNull()
      expect(fresh.view.rows.has(good)).toBe(true)
      await world.admin`delete from features where name <> 'good'`
      await client.until(() => [...view.rows.keys()].join() === good, 'only the good one is left')
      await fresh.client.until(() => [...fresh.view.rows.keys()].join() === good, 'for the other, too')
    })
})

describe('the table itself', () => {
  test('I8: dropped: the subscription ends, the server and other tables go on', async () => {
    await using world = await createWorld({
      tables: [features(), features({ name: 'notes', geometry: null })],
    })
    const { client, view } = await world.watch(alice)
    const notes = await client.subscribe({ sub: 'notes', table: 'notes' })
    await world.put({ org: 'a' })
    await client.until(() => view.rows.size === 1, 'live')
    await world.admin`drop table features`
    const id = await world.put({ org: 'a', table: 'notes' })
    await client.until(() => notes.rows.has(id), 'notes go on')
    const again = await world.connect(alice)
    expect((await again.subscribe({ bbox: ZURICH })).ended).not.toBeNull()
    expect((await again.write([{ op: 'insert', columns: { org_id: 'a' } }])).edits[0]?.status).toBe(
      'rejected',
    )
  })

  test('I2: row security switched off or on, and grants taken away, are noticed before anything is sent', async () => {
    await using world = await createWorld()
    await world.put({ org: 'a' })
    const { client, view } = await world.watch(alice)
    await world.admin`revoke select on features from datum_app`
    await world.admin`update features set name = 'no longer for you'`
    await client.until(() => view.ended !== null, 'it ended')
    expect(view.ended?.code).toBe('forbidden')
    expect(JSON.stringify(client.frames)).not.toContain('no longer')
    await world.admin`grant select on features to datum_app`
    expect((await client.subscribe({ bbox: ZURICH })).rows.size).toBe(1)
  })

  test('I11: an index, a vacuum, an analyse and a rewrite while sockets are open', async () => {
    await using world = await createWorld()
    const id = await world.put({ org: 'a' })
    const { client, view } = await world.watch(alice)
    await world.admin`create index on features using gist (geom)`
    await world.admin`vacuum full features`
    await world.admin`analyze features`
    await world.admin`cluster features using features_geom_idx`
    await client.write([{ op: 'update', id, columns: { geom: point(8.1, 47.1) } }])
    await client.until(
      () => JSON.stringify(view.rows.get(id)?.geom) === JSON.stringify(point(8.1, 47.1)),
      'moved',
    )
    await client.setBbox('s', 1, [8, 47, 8.2, 47.2])
    await world.untilTrue(client, view, alice, [8, 47, 8.2, 47.2])
  })
})
