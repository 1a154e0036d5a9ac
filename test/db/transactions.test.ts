/** What statements may count on: that none but its own run in a transaction, and that each gets its own answer. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { connect } from 'node:net'
import postgres from 'postgres'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)
const onServer = test.skipIf((await backendKind()) === 'embedded')

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

onServer(
  'I2: each query gets its own answer, also where the socket has room while Postgres is starting',
  async () => {
    await using world = await createWorld({ start: false })
    const { hostname, port } = new URL(world.appUrl!)
    /** Tells that there is room again after everything that is written, the first message included. */
    const socket = () =>
      new Promise((resolve) => {
        const stream = connect(Number(port), hostname, () => resolve(stream))
        const write = stream.write.bind(stream)
        stream.write = ((...written: Parameters<typeof write>) => {
          setImmediate(() => stream.emit('drain'))
          return write(...written)
        }) as typeof stream.write
      })
    const sql = postgres(world.appUrl!, { max: 1, fetch_types: false, socket } as never)
    try {
      const asked = Array.from({ length: 50 }, (_, n) => n)
      const answers = await Promise.all(asked.map(async (n) => (await sql`select ${n}::int as n`)[0]?.n))
      expect(answers).toEqual(asked)
    } finally {
      await sql.end({ timeout: 1 })
    }
  },
)
