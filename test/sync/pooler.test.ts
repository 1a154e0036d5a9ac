/** Behind a pooler that gives every statement another session of Postgres (transaction mode). Invariants 4 and 7. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import type { Sql } from 'postgres'
import { install } from '../../src/db/install.ts'
import { createLog } from '../../src/observe/log.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)
const onServer = test.skipIf((await backendKind()) === 'embedded')

/** Deals out statements to sessions in turns. */
function dealing(sessions: readonly Sql[]): Sql {
  let dealt = 0
  return new Proxy(sessions[0]!, {
    apply: (_, self, args) => Reflect.apply(sessions[dealt++ % sessions.length]!, self, args),
  })
}

onServer('I4: sessions that come and go under the feed make it poll, and no change is lost', async () => {
  await using world = await createWorld({ start: false })
  await install(world.admin, { tables: world.config.tables, role: 'datum_app' })
  const database = world.openDatabase()
  const feed = dealing([database, world.openDatabase(), world.openDatabase()].map((one) => one.feed))
  const said: string[] = []
  const polls = Promise.withResolvers<void>()
  const log = createLog('silent')
  log.warn = Object.assign(
    (message: string) => {
      said.push(message)
      if (message.includes('pooler')) polls.resolve()
    },
    { raw: () => {} },
  )
  await world.addServer({ database: Object.create(database, { feed: { value: feed } }), log })
  await polls.promise
  const { client, view } = await world.watch({ sub: 'alice', org_id: 'a' })
  const id = await world.put({ org: 'a' })
  await client.until(() => view.rows.has(id), 'the change')
  // A lock that stays behind with one of the sessions would have every commit of the application ring.
  const locks = await world.admin`
    select from pg_locks l join pg_database d on d.oid = l.database
     where l.locktype = 'advisory' and d.datname = current_database()`
  expect(locks).toHaveLength(0)
  expect(said.filter((message) => message.includes('pooler'))).toHaveLength(1)
})
