/** Servers that are replaced, by others of the same version, a newer or an older one, under clients that go on. Invariants 5 and 7. */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { DatumClient, type WebSocketConstructor } from '../../client/index.ts'
import { openPostgres } from '../../src/db/postgres.ts'
import { SCHEMA_VERSION } from '../../src/db/schema-version.ts'
import { uninstall } from '../../src/db/uninstall.ts'
import { createLog } from '../../src/observe/log.ts'
import type { RunningServer } from '../../src/server.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'
import { mintToken } from '../support/token.ts'
import { GIVE_UP_MS } from '../support/wire-client.ts'

/** The embedded database belongs to a single server. */
const onServer = describe.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(2 * TEST_TIMEOUT_MS)

const alice = { sub: 'alice', org_id: 'a' }

/** A load balancer: sends new sockets to one server and then to another. */
class Balancer {
  target: RunningServer
  readonly handshakes: string[] = []
  constructor(target: RunningServer) {
    this.target = target
  }

  get WebSocket(): WebSocketConstructor {
    const url = () => {
      this.handshakes.push(this.target.url)
      return `${this.target.url.replace('http', 'ws')}/ws`
    }
    return class extends WebSocket {
      constructor(_url: string, protocols: string[]) {
        super(url(), protocols)
      }
    }
  }

  connect(): Promise<DatumClient> {
    const token = () => mintToken(alice)
    return DatumClient.connect({
      serverUrl: 'ws://balancer.test',
      bbox: ZURICH,
      token,
      WebSocket: this.WebSocket,
    })
  }
}

async function until(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const giveUpAt = Date.now() + GIVE_UP_MS
  while (!(await holds())) {
    if (Date.now() > giveUpAt) throw new Error(`never ${what}`)
    await Bun.sleep(20)
  }
}

/** Somebody in the application locks the table against edits. Resolves to a function that lets go. */
async function lockTable(world: World): Promise<() => Promise<void>> {
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  const locked = Promise.withResolvers<void>()
  const whole = world.admin.begin(async (transaction) => {
    await transaction`lock table features in share mode`
    locked.resolve()
    await released
  })
  await locked.promise
  return async () => {
    release()
    await whole
  }
}

const untilWaiting = (world: World) =>
  until(async () => {
    const waiting = await world.admin`
      select from pg_locks where not granted and relation = 'features'::regclass`
    return waiting.length > 0
  }, 'an edit waits for the lock')

onServer('a server that is stopped', () => {
  /** Ids made by Postgres: an edit that is applied twice makes two rows. */
  const tables = [features({ id: 'bigint' })]

  test('I7: while an edit is under way ends it first; the client gets its outcome from the next server', async () => {
    await using world = await createWorld({ tables })
    const balancer = new Balancer(world.server)
    const db = await balancer.connect()
    const release = await lockTable(world)
    const inserted = db.insert({
      org_id: 'a',
      name: 'once',
      geom: { type: 'Point', coordinates: [8.5, 47.5] },
    })
    await untilWaiting(world)
    balancer.target = await world.addServer()
    const stopped = world.server.stop()
    await until(() => db.connectionStatus === 'connecting', 'the socket is closed')
    await release()
    await stopped
    const id = await inserted
    await until(() => db.rows.get(id)?.name === 'once' && db.pendingCount === 0, 'settled')
    const rows = await world.admin`select id::text from features`
    expect([...rows]).toEqual([{ id }])
    await db.disconnect()
  })

  test('I7: while an edit does not end gives it up in the time it has; the next server applies it, once', async () => {
    await using world = await createWorld({ tables })
    await world.admin.unsafe(`create table switch (is_on boolean); grant select on switch to public;
      create function dawdle() returns trigger language plpgsql as $$
        begin if exists (select from public.switch) then perform pg_sleep(60); end if; return new; end $$;
      create trigger dawdle before insert on features for each row execute function dawdle()`)
    const database = openPostgres(world.appUrl!, createLog('error'))
    const balancer = new Balancer(await world.addServer({ database }))
    const db = await balancer.connect()
    await world.admin`insert into switch values (true)`
    const inserted = db.insert({
      org_id: 'a',
      name: 'once',
      geom: { type: 'Point', coordinates: [8.5, 47.5] },
    })
    await until(
      async () => (await world.admin`select from pg_stat_activity where wait_event = 'PgSleep'`).length > 0,
      'the edit is under way',
    )
    const old = balancer.target
    balancer.target = world.server
    await world.admin`delete from switch`
    // As `serve` does it. It ends because it gives up: Postgres is still at it, and takes it back at its time limit.
    await old.stop()
    await database.close()
    expect(await world.admin`select from pg_stat_activity where wait_event = 'PgSleep'`).toHaveLength(1)
    const id = await inserted
    await until(() => db.rows.get(id)?.name === 'once', 'shown')
    expect(await world.admin`select from features`).toHaveLength(1)
    await db.disconnect()
  })

  test('takes no new sockets while it waits for what is under way, and says that it is not ready', async () => {
    await using world = await createWorld({ tables })
    const { client } = await world.watch(alice)
    const release = await lockTable(world)
    client.send({
      type: 'write',
      batch: crypto.randomUUID(),
      edits: [{ op: 'insert', columns: { org_id: 'a' } }],
    })
    await untilWaiting(world)
    const stopped = world.server.stop()
    expect((await client.untilClosed()).code).toBe(1012)
    expect((await fetch(`${world.server.url}/readyz`)).status).toBe(503)
    expect((await fetch(`${world.server.url}/healthz`)).status).toBe(200)
    await expect(world.open()).rejects.toThrow('refused')
    await release()
    await stopped
  })

  test('I5: a client comes back to another one and resumes: what changed, and no more', async () => {
    await using world = await createWorld()
    for (let n = 0; n < 20; n++) await world.put({ org: 'a', name: `row ${n}` })
    const balancer = new Balancer(world.server)
    const db = await balancer.connect()
    const changes: string[] = []
    db.onChange(({ upserts, gone }) =>
      changes.push(...upserts.map((row) => String((row as { name: unknown }).name)), ...gone),
    )
    balancer.target = await world.addServer()
    await world.server.stop()
    const [changed, deleted] = [...db.rows.keys()] as [string, string]
    await world.admin`update features set name = 'changed' where id = ${changed}`
    await world.admin`delete from features where id = ${deleted}`
    await until(() => db.connectionStatus === 'connected' && !db.rows.has(deleted), 'resumed')
    await until(() => db.rows.get(changed)?.name === 'changed', 'brought up to date')
    expect(changes.sort()).toEqual(['changed', deleted].sort())
    expect(new Set(balancer.handshakes).size).toBe(2)
    await db.disconnect()
  })
})

onServer('the installed schema', () => {
  /** As a later version would leave it. */
  const upgrade = (world: World, oldestServer: number) =>
    world.admin`update datum.meta set version = ${SCHEMA_VERSION + 1}, oldest_server = ${oldestServer}`

  test('upgraded to one that this server can go on with: it does, and so does one that starts', async () => {
    await using world = await createWorld()
    const { client, view } = await world.watch(alice)
    await upgrade(world, SCHEMA_VERSION)
    const second = await world.addServer()
    const two = await world.watch(alice, { server: second })
    // Longer than it takes to look at the version.
    const unfit = await Promise.race([world.server.unfit, Bun.sleep(7_000)])
    expect(unfit).toBeUndefined()
    const id = await world.put({ org: 'a' })
    await client.until(() => view.rows.has(id), 'seen through the old one')
    await two.client.until(() => two.view.rows.has(id), 'and through the other')
  })

  test('upgraded to one that this server cannot go on with: it says so and stops; none starts', async () => {
    await using world = await createWorld()
    await upgrade(world, SCHEMA_VERSION + 1)
    expect((await world.server.unfit).message).toContain('Upgrade datum-server')
    await expect(world.addServer()).rejects.toThrow('Upgrade datum-server')
    await expect(world.addServer()).rejects.toThrow(String(SCHEMA_VERSION + 1))
  })

  test('I7: removed: edits are not decided before the server stops', async () => {
    await using world = await createWorld()
    const { client } = await world.watch(alice)
    await uninstall(world.admin)
    const batch = crypto.randomUUID()
    client.send({ type: 'write', batch, edits: [{ op: 'insert', columns: { org_id: 'a' } }] })
    expect(await client.next('unavailable')).toMatchObject({ batch })
    expect(await world.admin`select from features`).toHaveLength(0)
    expect((await world.server.unfit).message).toContain('not installed')
  })

  test('of an older version: a server whose role may not upgrade it names the command', async () => {
    await using world = await createWorld()
    await world.admin`update datum.meta set version = ${SCHEMA_VERSION - 1}`
    await expect(world.addServer()).rejects.toThrow('datum-server setup')
    await expect(world.addServer()).rejects.toThrow(`needs ${SCHEMA_VERSION}`)
    expect((await world.server.unfit).message).toContain(`needs ${SCHEMA_VERSION}`)
  })
})
