/** What a transaction may count on: that nothing but its own statements runs in it. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

test('I1: statements that wait for a connection run in nobody’s open transaction, even after one that sent megabytes', async () => {
  await using world = await createWorld({ start: false })
  const { sql } = world.openDatabase()
  const megabytes = 'x'.repeat(16 << 20)
  let done = false
  const transactions = Array.from({ length: 12 }, () =>
    sql.begin(async (transaction) => {
      await transaction`select set_config('datum.inside', 'yes', true)`
      for (let time = 0; time < 3; time++) {
        await transaction`select length(${megabytes}::text)`
        // The line is free for a moment, and the socket tells that it has sent everything.
        await Bun.sleep(5)
      }
      return (await transaction`select current_setting('datum.inside') as value`)[0]?.value
    }),
  )
  const outside: Promise<string>[] = []
  const ask = async () =>
    (await sql`select coalesce(current_setting('datum.inside', true), '') as value`)[0]?.value
  const asker = (async () => {
    while (!done) {
      outside.push(ask())
      await Bun.sleep(1)
    }
  })()
  try {
    expect(await Promise.all(transactions)).toEqual(transactions.map(() => 'yes'))
  } finally {
    done = true
    await asker
  }
  expect(new Set(await Promise.all(outside))).toEqual(new Set(['']))
})
