/**
 * Many statements over few connections that are cut, cancelled and terminated: each gets its own answer or an error, and
 * none runs in a transaction of somebody else. What the patch of postgres.js is for (docs/ARCHITECTURE.md).
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import type { Sql, TransactionSql } from 'postgres'
import { backendKind } from '../support/backend.ts'
import { openConnections } from '../support/connections.ts'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'
import { APP_ROLE } from '../support/postgres.ts'
import { proxyTo } from '../support/proxy.ts'
import { Random, runSeed } from '../support/random.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)
const onServer = test.skipIf((await backendKind()) === 'embedded')

const STATEMENTS = 3_000
/** So many at a time, over three connections: most wait, in one of the rows that there are. */
const AT_A_TIME = 40

interface Answer {
  readonly n: number
  /** Whose transaction it ran in: of none, or of the one with this number. */
  readonly inside: string
}

onServer(
  'I2: every statement gets its own answer, whatever happens to the others and to their connection',
  async () => {
    await using world = await createWorld({ start: false })
    using proxy = await proxyTo(world.appUrl!)
    await using sql = openConnections(proxy.url, { max: 3, backoff: () => 0.02, onnotice: () => {} })
    const seed = runSeed()
    const random = new Random(seed)
    const wrong: string[] = []
    // Where one answer went astray another statement waits for ever.
    const { promise: anyWrong, reject: stop } = Promise.withResolvers<never>()
    const report = (text: string) => {
      wrong.push(text)
      stop(new Error(`seed ${seed}: ${wrong.join('; ')}`))
    }
    const done = { answered: 0, failed: 0, transactions: 0 }

    /** Asks for a number of its own; `inside`: what it must find out about the transaction it runs in. */
    async function ask(on: Sql | TransactionSql, inside: string, mayCancel: boolean): Promise<void> {
      const n = random.below(2 ** 31)
      const filling = 'x'.repeat(
        random.weighted([
          [20, 10],
          [3, 5_000],
          [0.7, 300_000],
          [0.07, 6_000_000],
        ]),
      )
      const pause = random.weighted([
        [10, 0],
        [2, 0.005],
        [1, 0.03],
      ])
      const kind = random.weighted([
        [12, 'asks'],
        [1, 'has no value'],
        [1, 'is refused'],
        [mayCancel ? 3 : 0, 'is cancelled'],
      ])
      const value = kind === 'has no value' ? (undefined as never) : n
      const divisor = kind === 'is refused' ? 0 : 1
      const asked = on<Answer[]>`
      select ${value}::int4 / ${divisor}::int4 as n, coalesce(current_setting('datum.inside', true), '') as inside
      from pg_sleep(${pause}) where length(${filling}) > 0`.execute()
      const timer = setTimeout(() => kind === 'is cancelled' && asked.cancel(), random.below(40))
      try {
        const [answer] = await asked
        done.answered++
        if (answer?.n !== n) report(`${n} (${kind}) got ${answer?.n}`)
        if (answer?.inside !== inside)
          report(`${n} (${kind}) ran in '${answer?.inside}' and not in '${inside}'`)
        if (kind === 'has no value' || kind === 'is refused') report(`${n} (${kind}) was answered`)
      } finally {
        clearTimeout(timer)
      }
    }

    async function transact(): Promise<void> {
      done.transactions++
      const inside = String(random.below(2 ** 31))
      await sql.begin(async (transaction) => {
        await transaction`select set_config('datum.inside', ${inside}, true)`
        const statements = 1 + random.below(3)
        if (random.chance(0.5)) {
          // Some go on after an error, as if the transaction were there still, which after a cut it is not.
          const goesOn = random.chance(0.5)
          for (let n = 0; n < statements; n++)
            await ask(transaction, inside, false).catch((error) =>
              goesOn ? Bun.sleep(60) : Promise.reject(error),
            )
        } else {
          await Promise.all(Array.from({ length: statements }, () => ask(transaction, inside, false)))
        }
        if (random.chance(0.2)) throw new Error('rolled back')
      })
    }

    async function interfere(): Promise<void> {
      if (random.chance(0.3)) return proxy.end()
      // As with a pooler that gives each transaction another session: prepared statements are gone.
      if (random.chance(0.3)) await sql.unsafe('deallocate all')
      await world.admin`select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and usename = ${APP_ROLE} and random() < 0.5`
    }

    let left = STATEMENTS
    const worker = async () => {
      while (left-- > 0) {
        const work = random.weighted([
          [20, () => ask(sql, '', true)],
          [8, transact],
          [0.6, interfere],
        ])
        await work().catch(() => done.failed++)
      }
    }
    await Promise.race([Promise.all(Array.from({ length: AT_A_TIME }, worker)), anyWrong])
    // Nor is a connection lost: as many as ever answer side by side. Those that were terminated last may be known to be a
    // moment later.
    const sideBySide = () =>
      Promise.all(Array.from({ length: 3 }, () => sql`select pg_backend_pid() as pid from pg_sleep(0.2)`))
    let pids = new Set<number>()
    while (pids.size < 3) pids = new Set((await sideBySide().catch(() => [])).map(([row]) => row?.pid))
    expect(done.answered).toBeGreaterThan(STATEMENTS / 2)
    expect(done.failed).toBeGreaterThan(STATEMENTS / 20)
  },
)
