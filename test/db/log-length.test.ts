/** A look at the change log costs what is new, however long the log is. Real Postgres only: PGlite keeps no such counts. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import postgres, { type Sql } from 'postgres'
import { currentCursor, readChanges } from '../../src/db/feed.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const realOnly = (await backendKind()) === 'postgres' ? test : test.skip

realOnly('I11: a log that nobody has analyzed yet is not read from end to end for one change', async () => {
  await using world = await createWorld()
  await world.admin`insert into features (org_id, size) select 'a', n from generate_series(1, 1000) n`
  const [row] = await world.admin<{ oid: number }[]>`select 'features'::regclass::oid::int as oid`
  for (let n = 0; n < 20; n++) await world.admin`update features set name = ${n}`
  const sql = postgres(world.appUrl!, { max: 1, fetch_types: false })
  try {
    // More often than it takes Postgres to settle on a plan.
    for (let n = 0; n < 8; n++) {
      const cursor = await currentCursor(sql)
      await world.admin`update features set name = 'new' where size = ${n + 1}`
      await sql.begin(async (transaction) => {
        const { changes } = await readChanges(transaction as unknown as Sql, cursor, [row!.oid])
        expect(changes).toHaveLength(1)
        const [read] = await transaction<{ whole: number }[]>`
          select seq_scan::int as whole from pg_stat_xact_user_tables where relid = 'datum.change'::regclass`
        expect(read?.whole).toBe(0)
      })
    }
  } finally {
    await sql.end()
  }
})
