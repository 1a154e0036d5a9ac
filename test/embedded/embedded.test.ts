/**
 * The embedded Postgres by itself: who its statements run as, what survives a restart, who may open it. That the whole
 * server behaves on it as on a real one is what the behavioural suite shows when it runs on both.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type EmbeddedDatabase, openEmbedded } from '../../src/db/embedded.ts'
import { createLog } from '../../src/observe/log.ts'
import { OperatorError } from '../../src/operator-error.ts'

const log = createLog('silent')

/** Starting Postgres takes seconds, and the first start on a machine also makes the template. */
const START_TIMEOUT_MS = 180_000

describe('in memory', () => {
  let database: EmbeddedDatabase

  beforeAll(async () => {
    database = await openEmbedded({ dataDir: null, initSql: null, log })
  }, START_TIMEOUT_MS)
  afterAll(() => database.close())

  const whoAmI = async (sql = database.sql) => (await sql`select current_user as me`)[0]!.me as string

  test('has PostGIS and the features table of the quick start', async () => {
    await database.sql`
      insert into features (name, geom) values ('a', st_setsrid(st_makepoint(7, 46), 4326))`
    const [row] = await database.sql`select id, name, st_x(geom) as x, owner_id, properties from features`
    expect(row).toMatchObject({ name: 'a', x: 7, owner_id: null, properties: {} })
    expect(row!.id).toMatch(/^[0-9a-f-]{36}$/)
  })

  test('works as a role that RLS binds', async () => {
    const [role] = await database.sql`
      select rolname, rolsuper, rolbypassrls, rolcanlogin from pg_roles where rolname = current_user`
    expect(role!).toEqual({ rolname: 'datum_app', rolsuper: false, rolbypassrls: false, rolcanlogin: false })
    expect(database.role).toBe('datum_app')

    await database.asOwner(async (owner) => {
      await owner`create table guarded (id int primary key, org text)`
      await owner`alter table guarded enable row level security`
      await owner`create policy p on guarded using (org = current_setting('datum.org', true))`
      await owner`insert into guarded values (1, 'a'), (2, 'b')`
    })
    const seen = await database.sql.begin(async (sql) => {
      await sql`select set_config('datum.org', 'b', true)`
      return await sql`select id from guarded`
    })
    expect([...seen]).toEqual([{ id: 2 }])
    expect(await database.sql`select id from guarded`).toHaveLength(0)
  })

  test('does owner work as the superuser and goes back, also after a failure', async () => {
    expect(await database.asOwner(whoAmI)).toBe('postgres')
    expect(await whoAmI()).toBe('datum_app')

    const failing = database.asOwner(async (owner) => {
      await owner`create table half_done ()`
      throw new Error('on purpose')
    })
    await expect(failing).rejects.toThrow('on purpose')
    expect(await whoAmI()).toBe('datum_app')
  })

  test('does not let owner work leave a transaction open', async () => {
    const failing = database.asOwner(async (owner) => {
      await owner.unsafe('begin')
      await owner`create table left_open ()`
      await owner`select 1 / 0`
    })
    await expect(failing).rejects.toThrow('division by zero')
    expect(await whoAmI()).toBe('datum_app')
    const [row] = await database.sql`select to_regclass('left_open') as name`
    expect(row!.name).toBeNull()
  })

  test('makes statements wait for owner work, and owner work for transactions', async () => {
    const order: string[] = []
    const transaction = database.sql.begin(async (sql) => {
      await sql`select pg_sleep(0)`
      order.push(`transaction as ${(await sql`select current_user as me`)[0]!.me}`)
    })
    const owner = database.asOwner(async (sql) => {
      await sql`select 1`
      order.push(`owner as ${await whoAmI(sql)}`)
    })
    const statement = whoAmI().then((me) => order.push(`statement as ${me}`))
    await Promise.all([transaction, owner, statement])
    expect(order.filter((line) => line.startsWith('owner'))).toEqual(['owner as postgres'])
    expect(order.filter((line) => !line.startsWith('owner')).sort()).toEqual([
      'statement as datum_app',
      'transaction as datum_app',
    ])
  })

  test('survives errors, cursors, and results of many megabytes', async () => {
    const failed: { code?: string } = await database.sql`select no_such_column`.catch((error) => error)
    expect(failed.code).toBe('42703')
    const sizes: number[] = []
    await database.sql.begin(async (sql) => {
      for await (const rows of sql`select generate_series(1, 2500)`.cursor(1000)) sizes.push(rows.length)
    })
    expect(sizes).toEqual([1000, 1000, 500])
    const rows = await database.sql`select repeat('x', 1000) as text from generate_series(1, 20000)`
    expect(rows).toHaveLength(20_000)
    expect(await Promise.all([1, 2, 3].map((n) => database.sql`select ${n}::int as n`))).toMatchObject([
      [{ n: 1 }],
      [{ n: 2 }],
      [{ n: 3 }],
    ])
  })

  test('rings whoever listens, after the commit, until they stop', async () => {
    let rings = 0
    const stop = await database.listen('Bell of mine', () => {
      rings += 1
    })
    await database.sql.begin(async (sql) => {
      await sql`select pg_notify('Bell of mine', '')`
      expect(rings).toBe(0)
    })
    expect(rings).toBe(1)
    await database.asOwner((owner) => owner`select pg_notify('Bell of mine', '')`)
    expect(rings).toBe(2)
    await database.sql`select pg_notify('another bell', '')`
    expect(rings).toBe(2)
    await stop()
    await database.sql`select pg_notify('Bell of mine', '')`
    expect(rings).toBe(2)
  })
})

describe('in a folder', () => {
  let parent: string
  beforeAll(async () => {
    parent = await mkdtemp(join(tmpdir(), 'datum-embedded-'))
  })
  afterAll(() => rm(parent, { recursive: true, force: true }))

  test(
    'keeps rows and grants over a restart, and runs the initial SQL once',
    async () => {
      const parts = {
        dataDir: join(parent, 'kept', 'deeper'),
        initSql: 'create table spots (id int primary key); create sequence numbers;',
        log,
      }
      const first = await openEmbedded(parts)
      await first.sql`insert into spots values (1)`
      await first.close()

      const second = await openEmbedded(parts)
      await second.sql`insert into spots values (2)`
      expect([...(await second.sql`select id from spots order by id`)]).toEqual([{ id: 1 }, { id: 2 }])
      expect((await second.sql`select nextval('numbers') as n`)[0]!.n).toBe('1')
      await second.close()
    },
    START_TIMEOUT_MS,
  )

  test(
    'is refused to a second process, and free again once the first is gone',
    async () => {
      const folder = join(parent, 'locked')
      await mkdir(folder)
      const holder = Bun.spawn(
        [
          process.execPath,
          '-e',
          `import { lockFolder } from ${JSON.stringify(join(import.meta.dir, '../../src/db/embedded-lock.ts'))}
           lockFolder(${JSON.stringify(folder)}); Bun.gc(true); console.log('held'); setInterval(() => {}, 1000)`,
        ],
        { stdout: 'pipe' },
      )
      try {
        await holder.stdout.getReader().read()
        const refused: unknown = await openEmbedded({ dataDir: folder, initSql: '', log }).catch(
          (error) => error,
        )
        expect(refused).toBeInstanceOf(OperatorError)
        expect((refused as Error).message).toContain('in use by another datum-server process')
      } finally {
        // Killed, not closed: the lock must not outlive the process.
        holder.kill('SIGKILL')
        await holder.exited
      }
      const database = await openEmbedded({ dataDir: folder, initSql: '', log })
      await database.close()
    },
    START_TIMEOUT_MS,
  )

  test(
    'says what is wrong with the initial SQL, and begins anew when it is mended',
    async () => {
      const dataDir = join(parent, 'mended')
      const broken = 'create table spots (id int); create tabel more ();'
      const refused: unknown = await openEmbedded({ dataDir, initSql: broken, log }).catch((error) => error)
      expect(refused).toBeInstanceOf(OperatorError)
      expect((refused as Error).message).toContain('syntax error at or near "tabel"')

      const database = await openEmbedded({ dataDir, initSql: 'create table spots (id int)', log })
      expect(await database.sql`select * from spots`).toHaveLength(0)
      await database.close()
    },
    START_TIMEOUT_MS,
  )
})
