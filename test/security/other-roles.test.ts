/** What any role that may connect can do with the doorbell, and how long names of claims are kept. Invariants 5 and 11. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { openPostgres } from '../../src/db/postgres.ts'
import { createLog } from '../../src/observe/log.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, onlyOrg, TEST_TIMEOUT_MS } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)
/** The embedded Postgres is one session: there are no others. */
const onServer = test.skipIf((await backendKind()) === 'embedded')
const alice = { sub: 'alice', org_id: 'a' }

/** What src/db/doorbell.ts takes. */
const DOORBELL = '7233190524228887916'

onServer(
  'I5, I11: another role that rings without end and holds the doorbell’s lock keeps no change from anybody',
  async () => {
    await using world = await createWorld()
    const { client, view } = await world.watch(alice, { allowed: onlyOrg('a') })
    await world.admin.begin(async (transaction) => {
      // As if a server slept for ever: writers ring for each of their transactions.
      await transaction`select pg_advisory_xact_lock_shared(${DOORBELL}::bigint)`
      for (let n = 0; n < 200; n++) await world.admin`select pg_notify('datum', ${String(n)})`
      const id = await world.put({ org: 'a', name: 'while locked' })
      await client.until(() => view.rows.has(id), 'the row')
    })
    await world.untilTrue(client, view, alice)
  },
)

test('connections end within the hour, and with them the names of claims that Postgres keeps for each', async () => {
  const database = openPostgres('postgres://nobody@127.0.0.1:1/none', createLog('silent'))
  try {
    for (const sql of [database.sql, database.bulk, database.writes]) {
      // The library's own default draws one for each connection.
      const lifetime: unknown = sql.options.max_lifetime
      const seconds: unknown = typeof lifetime === 'function' ? lifetime() : lifetime
      expect(seconds).toBeNumber()
      expect(seconds as number).toBeWithin(60, 3_601)
    }
  } finally {
    await database.close()
  }
})
