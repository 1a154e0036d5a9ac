/** The end of a round: when all is quiet, what clients show and were told must be what the database has. */
import type { Sql } from 'postgres'
import type { Policy } from './model.ts'
import type { TortureWorld } from './world.ts'

export interface Checked {
  readonly name: string
  readonly isConnected: boolean
  settle(): Promise<void>
  differences(sql: Sql): Promise<string[]>
}

/** Nothing is measured with it: views that differ from the truth for so long will do so for ever. */
const GIVE_UP_MS = 40_000

export async function checkpoint(world: TortureWorld, clients: readonly Checked[]): Promise<void> {
  await untilPostgresAnswers(world)
  world.history.note('checkpoint', 'settling')
  await Promise.all(clients.map((client) => client.settle()))
  world.history.note('checkpoint', 'comparing')
  await Promise.all(clients.map((client) => untilTrue(world, client)))
  await world.cursors.check(world.sql, world.book)
  await world.book.check(world.sql)
  // Whatever was read under the policy of before has arrived by now: the views have been equal to the truth.
  const inForce = await policyInForce(world.sql)
  for (const policy of [...world.policies]) if (policy !== inForce) world.policies.delete(policy)
  world.history.note('checkpoint', 'passed')
}

async function untilTrue(world: TortureWorld, client: Checked): Promise<void> {
  for (const giveUpAt = Date.now() + GIVE_UP_MS; ; await Bun.sleep(100)) {
    const found = client.isConnected ? await client.differences(world.sql) : ['not connected']
    if (found.length === 0) return
    if (!client.isConnected) await client.settle()
    if (Date.now() < giveUpAt) continue
    const list = found.slice(0, 10).join('\n  ')
    return world.history.violation(
      client.name,
      `I4: never equals the truth (${found.length} differences):\n  ${list}`,
    )
  }
}

export async function untilPostgresAnswers({ sql }: TortureWorld): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await sql`select 1`
      return
    } catch (error) {
      if (attempt === 100) throw error
      await Bun.sleep(100)
    }
  }
}

async function policyInForce(sql: Sql): Promise<Policy> {
  const [row] = await sql`
    select qual like '%public%' as open from pg_policies where tablename = 'features' and policyname = 'reading'`
  return row?.open ? 'open' : 'strict'
}
