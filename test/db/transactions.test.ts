/** What statements may count on: that none but its own run in a transaction, and that each gets its own answer. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { connect } from 'node:net'
import type { Sql, TransactionSql } from 'postgres'
import { backendKind } from '../support/backend.ts'
import { openConnections } from '../support/connections.ts'
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
    await using sql = openConnections(world.appUrl!, { socket })
    const asked = Array.from({ length: 50 }, (_, n) => n)
    const answers = await Promise.all(asked.map(async (n) => (await sql`select ${n}::int as n`)[0]?.n))
    expect(answers).toEqual(asked)
  },
)

onServer(
  'I2: a query that is cancelled while it waits on its connection leaves the others their own answers',
  async () => {
    await using world = await createWorld({ start: false })
    await using sql = openConnections(world.appUrl!)
    await sql`select 1`
    const first = sql`select pg_sleep(0.3)::text, 1 as n`.execute()
    const cancelled = sql`select pg_sleep(30)::text, 2 as n`.execute()
    const last = sql`select 3 as n`.execute()
    // When all are sent, and the first is not answered.
    await Bun.sleep(100)
    cancelled.cancel()
    const [one, two, three] = await Promise.allSettled([first, cancelled, last])
    expect(one).toMatchObject({ status: 'fulfilled', value: [{ n: 1 }] })
    expect(two).toMatchObject({ status: 'rejected', reason: { code: '57014' } })
    expect(three).toMatchObject({ status: 'fulfilled', value: [{ n: 3 }] })
  },
)

onServer(
  'I2: a query that cannot be sent is refused alone, and leaves the others their own answers',
  async () => {
    await using world = await createWorld({ start: false })
    await using sql = openConnections(world.appUrl!)
    await sql`select 1`
    const first = sql`select pg_sleep(0.2)::text, 1 as n`.execute()
    const unsendable = sql`select ${undefined as never}::int as n`.execute()
    const next = sql`select 3 as n`.execute()
    const last = sql`select 4 as n`.execute()
    const [one, two, three, four] = await Promise.allSettled([first, unsendable, next, last])
    expect(one).toMatchObject({ status: 'fulfilled', value: [{ n: 1 }] })
    expect(two).toMatchObject({ status: 'rejected', reason: { code: 'UNDEFINED_VALUE' } })
    expect(three).toMatchObject({ status: 'fulfilled', value: [{ n: 3 }] })
    expect(four).toMatchObject({ status: 'fulfilled', value: [{ n: 4 }] })
  },
)

onServer(
  'I2: an answer begins with its own first row, also after an error that came behind some',
  async () => {
    await using world = await createWorld({ start: false })
    await using sql = openConnections(world.appUrl!)
    const failed = await sql`select 1 / (30 - n) from generate_series(1, 30) n`.catch((error) => error)
    expect(failed).toMatchObject({ code: '22012' })
    expect([...(await sql`select 7 as n`)]).toEqual([{ n: 7 }])
  },
)

onServer(
  'I7: a transaction that is said to be committed is, whatever became of its prepared statements',
  async () => {
    await using world = await createWorld({ start: false })
    await using sql = openConnections(world.appUrl!)
    const insert = (n: number) =>
      sql.begin(async (transaction) => {
        await transaction`insert into committed values (${n})`
        // As a pooler has them that gives each transaction another session.
        await transaction.unsafe('deallocate all')
      })
    await sql.unsafe('create temp table committed (n integer)')
    const said: number[] = []
    for (let n = 0; n < 4; n++)
      await insert(n).then(
        () => said.push(n),
        (error) => expect(error).toMatchObject({ code: '26000' }),
      )
    const is = await sql<{ n: number }[]>`select n from committed order by n`.simple()
    expect(is.map(({ n }) => n)).toEqual(said)
    expect(said.length).toBeGreaterThan(0)
  },
)

onServer('I2: what is left of a transaction that has ended runs in no other one', async () => {
  await using world = await createWorld({ start: false })
  await using sql = openConnections(world.appUrl!)
  let left: TransactionSql | undefined
  await sql
    .begin(async (transaction) => {
      left = transaction
      throw new Error('rolled back')
    })
    .catch(() => {})
  await sql.begin(async (transaction) => {
    await transaction`select set_config('datum.inside', 'another one', true)`
    const late = left!`select current_setting('datum.inside', true) as inside`
    expect(await late.catch((error) => error)).toMatchObject({ code: 'TRANSACTION_ENDED' })
  })
})

onServer('I2: a transaction has its connection to itself, also one that finds it full', async () => {
  await using world = await createWorld({ start: false })
  await using sql = openConnections(world.appUrl!, { max_pipeline: 1 })
  const inside = (on: Sql | TransactionSql) =>
    on<{ is: string }[]>`select coalesce(current_setting('datum.inside', true), '') as is`.then(
      ([row]) => row?.is,
    )
  await sql`select 1`
  const before = inside(sql)
  const transaction = sql.begin(async (transaction) => {
    await transaction`select set_config('datum.inside', 'yes', true)`
    await Bun.sleep(50)
    return await inside(transaction)
  })
  const after = Bun.sleep(20).then(() => inside(sql))
  expect(await Promise.all([before, transaction, after])).toEqual(['', 'yes', ''])
})
