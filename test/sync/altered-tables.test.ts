/**
 * ALTER TABLE while the server runs and clients are connected: the application's writes work before, during and after,
 * and the clients, with `DatumClient`, come to show the table as it is now. Invariants 4 and 11.
 */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { DatumClient, type Row } from '../../client/index.ts'
import { install } from '../../src/db/install.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, onlyOrg, point, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { APP_ROLE } from '../support/postgres.ts'
import { features, type TableSpec, tableConfig, tenantPolicies } from '../support/table-spec.ts'
import { mintToken } from '../support/token.ts'
import { GIVE_UP_MS } from '../support/wire-client.ts'

/** Whoever serves the embedded database is its owner: nobody else alters it. */
const onServer = describe.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(2 * TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

class Watcher {
  readonly errors: string[] = []
  private constructor(readonly db: DatumClient) {
    db.onError(({ code }) => this.errors.push(code))
  }

  static async connect(world: World, table?: string): Promise<Watcher> {
    const token = () => mintToken(alice)
    const serverUrl = world.server.url
    return new Watcher(
      await DatumClient.connect({ serverUrl, bbox: ZURICH, token, ...(table !== undefined && { table }) }),
    )
  }

  /** Waits until the rows, by name, are so. */
  async until(holds: (rows: Record<string, Row>) => boolean, what: string): Promise<void> {
    const giveUpAt = Date.now() + GIVE_UP_MS
    for (;;) {
      const rows = Object.fromEntries(
        [...this.db.rows.values()].map((row) => [String(row.name ?? row.title), row]),
      )
      if (holds(rows)) return
      if (Date.now() > giveUpAt) throw new Error(`never ${what}: ${JSON.stringify(rows)} ${this.errors}`)
      await Bun.sleep(20)
    }
  }
}

const INSERT = (name: string) =>
  `insert into features (org_id, name, geom) values ('a', '${name}', st_setsrid(st_makepoint(8.5, 47.5), 4326))`

interface Alteration {
  readonly what: string
  readonly alter: string
  /** The application's insert of a row named `after`, as it is from now on. */
  readonly insert?: string
  readonly holds: (rows: Record<string, Row>) => boolean
  /** What `DatumClient` writes to the row named `early` afterwards, and who sees it. */
  readonly write?: Row
  readonly columns?: string
  readonly id?: 'uuid' | 'integer'
}

const ALTERATIONS: readonly Alteration[] = [
  {
    what: 'a column added',
    alter: `alter table features add column fresh text not null default 'fresh'`,
    holds: ({ early, after }) => early?.fresh === 'fresh' && after?.fresh === 'fresh',
    write: { fresh: 'written' },
  },
  {
    what: 'a column dropped',
    alter: 'alter table features drop column size',
    holds: ({ early, after }) => !('size' in early!) && !('size' in after!),
    write: { name: 'written' },
  },
  {
    what: 'a column renamed',
    alter: 'alter table features rename column name to title',
    insert: INSERT('after').replace('name', 'title'),
    holds: ({ early, after }) => early?.title === 'early' && after?.title === 'after' && !('name' in after),
    write: { title: 'written' },
  },
  {
    what: 'the type of a column changed',
    alter: 'alter table features alter column size type bigint',
    holds: ({ early, after }) => early?.size === '1' && after !== undefined,
    write: { size: '12345678901234567890123'.slice(0, 18) },
  },
  {
    what: 'a column made into JSON',
    alter: `alter table features alter column size type jsonb using to_jsonb(array[size])`,
    holds: ({ early, after }) => JSON.stringify(early?.size) === '[1]' && after !== undefined,
    write: { size: { a: 1 } },
  },
  {
    what: 'the id made into text',
    alter: `alter table features alter column id drop default, alter column id type text using id::text,
      alter column id set default 'x' || gen_random_uuid()`,
    holds: ({ early, after }) => early !== undefined && String(after?.id).startsWith('x'),
    write: { size: 5 },
  },
  {
    what: 'an integer id made wider',
    id: 'integer',
    alter: 'alter table features alter column id type bigint',
    insert: INSERT('after').replace('(org_id', '(id, org_id').replace(`('a'`, `(9007199254740993, 'a'`),
    holds: ({ early, after }) => early?.id === '1' && after?.id === '9007199254740993',
    write: { size: 5 },
  },
  {
    what: 'the geometry in another system',
    alter:
      'alter table features alter column geom type geometry(Geometry, 3857) using st_transform(geom, 3857)',
    insert: INSERT('after')
      .replace('st_setsrid(', 'st_transform(st_setsrid(')
      .replace(', 4326)', ', 4326), 3857)'),
    holds: ({ early, after }) => [early, after].every((row) => near(row?.geom)),
    write: { size: 5 },
  },
  {
    what: 'the geometry made into geography',
    alter: 'alter table features alter column geom type geography(Geometry, 4326) using geom::geography',
    holds: ({ early, after }) => [early, after].every((row) => near(row?.geom)),
    write: { geom: point(8.6, 47.6) },
  },
  {
    what: 'the geometry made narrower',
    alter: 'alter table features alter column geom type geometry(Point, 4326)',
    holds: ({ early, after }) => [early, after].every((row) => near(row?.geom)),
    write: { geom: point(8.6, 47.6) },
  },
  {
    what: 'many at once',
    alter: `alter table features add column a text default 'a', drop column size, add column b integer default 2,
      alter column org_id set not null`,
    holds: ({ early, after }) =>
      [early, after].every((row) => row?.a === 'a' && row.b === 2 && !('size' in row)),
    write: { a: 'written' },
  },
]

function near(geometry: unknown): boolean {
  const { coordinates: [x = 0, y = 0] = [] } = (geometry ?? {}) as { coordinates?: number[] }
  return Math.abs(x - 8.5) < 1e-6 && Math.abs(y - 47.5) < 1e-6
}

onServer('columns', () => {
  for (const {
    what,
    alter,
    insert = INSERT('after'),
    holds,
    write,
    id = 'uuid',
    columns = '',
  } of ALTERATIONS)
    test(`I4, I11: ${what}: writes go on, and clients show it`, async () => {
      await using world = await createWorld({ tables: [features({ id, columns })] })
      await world.put({ org: 'a', name: 'early', size: 1 })
      const watcher = await Watcher.connect(world)
      // One session of the application throughout, whose plans are from before; and one transaction around it.
      const session = await world.admin.reserve()
      await session.unsafe(INSERT('warm'))
      await session.unsafe('begin')
      await session.unsafe(`update features set org_id = org_id`)
      await session.unsafe(alter)
      await session.unsafe(insert)
      await session.unsafe('commit')
      await session.unsafe(`update features set org_id = org_id`)
      session.release()
      await watcher.until(
        (rows) => rows.early !== undefined && rows.after !== undefined && holds(rows),
        'shown as it is now',
      )
      if (write !== undefined) {
        const early = [...watcher.db.rows.entries()].find(([, row]) => (row.name ?? row.title) === 'early')!
        const other = await Watcher.connect(world)
        await watcher.db.update(early[0], write)
        await other.until(() => {
          const seen = other.db.rows.get(early[0])
          return Object.entries(write).every(
            ([name, value]) => JSON.stringify(seen?.[name]) === JSON.stringify(value),
          )
        }, 'seen by another client')
        await other.db.disconnect()
      }
      await world.admin`delete from features`
      await watcher.until((rows) => Object.keys(rows).length === 0, 'empty')
      expect(watcher.errors).toEqual([])
      await watcher.db.disconnect()
      // Nothing had to fall back to "any row may be different".
      expect(await world.admin`select from datum.change where id is null`).toHaveLength(0)
    })
})

/** What the configuration names is gone: nothing can be served until `setup` was run again, or the name is back. */
onServer('what the configuration names', () => {
  const spec = features()
  const cases: readonly [what: string, away: string, back: string][] = [
    [
      'the table renamed',
      'alter table features rename to elsewhere',
      'alter table elsewhere rename to features',
    ],
    [
      'the table in another schema',
      'create schema attic; alter table features set schema attic',
      'alter table attic.features set schema public; drop schema attic',
    ],
    [
      'the id renamed',
      'alter table features rename column id to key',
      'alter table features rename column key to id',
    ],
    [
      'the geometry renamed',
      'alter table features rename column geom to place',
      'alter table features rename column place to geom',
    ],
    [
      'the geometry dropped',
      'alter table features drop column geom',
      'alter table features add column geom geometry(Geometry, 4326)',
    ],
    [
      'the id made into what cannot be one',
      'alter table features alter column id drop default, alter column id type jsonb using to_jsonb(id::text)',
      `alter table features alter column id type uuid using (id #>> '{}')::uuid, alter column id set default gen_random_uuid()`,
    ],
  ]
  for (const [what, away, back] of cases)
    test(`I8, I11: ${what} and back: writes go on, clients are told, and show it again`, async () => {
      await using world = await createWorld({
        tables: [spec, features({ name: 'notes' })],
      })
      await world.put({ org: 'a', name: 'early' })
      const watcher = await Watcher.connect(world)
      const notes = await Watcher.connect(world, 'notes')
      await world.admin.unsafe(away)
      const [columns, values] = what.startsWith('the id made') ? ['id', `'"x"'`] : ['org_id', `'a'`]
      const [{ relation } = { relation: '' }] = await world.admin`
        select tgrelid::regclass::text as relation from pg_trigger where tgname = 'zz_datum_update' and tgrelid <> 'notes'::regclass`
      await world.admin.unsafe(`insert into ${relation} (${columns}) values (${values});
        update ${relation} set size = 3; delete from ${relation} where name is null`)
      await watcher.until((rows) => Object.keys(rows).length === 0, 'told')
      expect(watcher.errors).toEqual(['error'])
      const note = await world.put({ org: 'a', name: 'note', table: 'notes' })
      await notes.until(() => notes.db.rows.has(note), 'the other table goes on')
      await world.admin.unsafe(back)
      await world.admin`update features set geom = st_setsrid(st_makepoint(8.5, 47.5), 4326), name = 'back'`
      await watcher.until((rows) => rows.back?.size === 3, 'shown again')
      await world.admin`update features set name = 'live'`
      await watcher.until((rows) => rows.live !== undefined, 'live again')
      for (const { db } of [watcher, notes]) await db.disconnect()
    })

  const again = `${spec.sql}; grant select, insert, update, delete on features to ${APP_ROLE}; ${spec.policies};`
  for (const [what, sql] of [
    ['dropped and made anew', `drop table features; ${again}`],
    [
      'swapped for a copy',
      `alter table features rename to old_features; ${again} insert into features select * from old_features; alter index features_pkey rename to pk`,
    ],
  ] as const)
    test(`I5, I11: the table ${what}, then set up: clients show it`, async () => {
      await using world = await createWorld({ tables: [spec] })
      await world.put({ org: 'a', name: 'early' })
      const watcher = await Watcher.connect(world)
      await world.admin.begin((transaction) => transaction.unsafe(sql))
      await world.admin.unsafe(INSERT('unlogged'))
      await watcher.until((rows) => Object.keys(rows).length === 0, 'told')
      await install(world.admin, { tables: [tableConfig(spec)], role: APP_ROLE })
      await watcher.until((rows) => rows.unlogged !== undefined, 'shown again')
      await world.admin.unsafe(INSERT('live'))
      await watcher.until((rows) => rows.live !== undefined, 'live again')
      await watcher.db.disconnect()
    })
})

onServer('partitions', () => {
  const partitioned: TableSpec = {
    name: 'features',
    geometryColumn: 'geom',
    sql: `create table features (id integer primary key, org_id text, name text, size integer, geom geometry(Point, 4326))
        partition by range (id);
      create table features_1 partition of features for values from (0) to (100)`,
    policies: tenantPolicies('features'),
  }
  const row = (table: string, id: number, name: string) =>
    `insert into ${table} (id, org_id, name, geom) values (${id}, 'a', '${name}', st_setsrid(st_makepoint(8.5, 47.5), 4326))`

  test('I4, I11: attached and detached, with rows in them, and written to through and past the root', async () => {
    await using world = await createWorld({ tables: [partitioned] })
    await world.admin.unsafe(row('features', 1, 'one'))
    const watcher = await Watcher.connect(world)
    const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
    const { admin } = world
    await admin.unsafe(row('features_1', 2, 'past the root'))
    await watcher.until((rows) => rows['past the root'] !== undefined, 'written past the root')
    await admin.unsafe(`create table features_2 (like features including all); ${row('features_2', 101, 'brought')};
      alter table features_2 add check (id >= 100 and id < 200)`)
    await admin`alter table features attach partition features_2 for values from (100) to (200)`
    await watcher.until((rows) => rows.brought !== undefined, 'attached')
    await admin.unsafe(row('features', 102, 'through the root'))
    await watcher.until((rows) => rows['through the root'] !== undefined, 'written through the root')
    await admin`alter table features detach partition features_1`
    await watcher.until((rows) => rows.one === undefined && rows.brought !== undefined, 'detached')
    // What is no part of it any more is nobody's business, and can be written to as before.
    await admin.unsafe(
      `${row('features_1', 3, 'alone')}; update features_1 set size = 1; delete from features_1 where id = 3; truncate features_1`,
    )
    await install(admin, { tables: world.config.tables, role: APP_ROLE })
    await admin.unsafe(row('features_2', 103, 'past the root again'))
    await watcher.until((rows) => rows['past the root again'] !== undefined, 'set up again')
    await admin`alter table features attach partition features_1 default`
    await admin.unsafe(
      `${row('features_1', 7, 'in the default')}; update features set id = id + 1000 where id = 7`,
    )
    await watcher.until((rows) => rows['in the default']?.id === 1007, 'moved')
    await admin`drop table features_1`
    await watcher.until((rows) => rows['in the default'] === undefined, 'dropped')
    await world.untilTrue(client, view, alice)
    expect(watcher.errors).toEqual([])
    await watcher.db.disconnect()
  })

  test('I4, I11: columns of a partitioned table and of its partitions, altered', async () => {
    await using world = await createWorld({ tables: [partitioned] })
    await world.admin.unsafe(row('features', 1, 'one'))
    const watcher = await Watcher.connect(world)
    await world.admin`alter table features add column fresh text default 'fresh'`
    await world.admin.unsafe(row('features_1', 2, 'two'))
    await watcher.until(({ one, two }) => one?.fresh === 'fresh' && two?.fresh === 'fresh', 'added')
    await world.admin`alter table features alter column size type text`
    await world.admin.unsafe(`${row('features', 3, 'three')}; update features_1 set size = 'x'`)
    await watcher.until(({ one, three }) => one?.size === 'x' && three?.size === 'x', 'retyped')
    expect(watcher.errors).toEqual([])
    await watcher.db.disconnect()
  })
})
