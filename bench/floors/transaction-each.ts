/** The rival of fan-out under policies on `sub`, a helper process: a transaction for each subscriber and change. */
import postgres, { type Sql } from 'postgres'
import { answerCommands } from '../helper-process.ts'

/** With as many, two cores are busy; more make it no faster. */
const CONNECTIONS = 4

let sql: Sql | null = null

answerCommands({
  /** Decisions a second. */
  async perSecond({
    url,
    decisions,
    sockets,
  }: {
    url: string
    decisions: number
    sockets: number
  }): Promise<number> {
    sql ??= postgres(url, { max: CONNECTIONS, onnotice: () => {}, fetch_types: false })
    const database = sql
    const ids = await database<{ id: string }[]>`select md5('0')::uuid::text as id`
    const { id } = ids[0]!
    const decide = (n: number) =>
      database.begin(async (transaction) => {
        await transaction`select set_config('datum.sub', ${`user-${n % sockets}`}, true)`
        await transaction`select to_json(f)::text from features f where f.id = ${id}::uuid`
      })
    // Statements are prepared and the connections open.
    await Promise.all(Array.from({ length: 50 }, (_, n) => decide(n)))
    const began = performance.now()
    let next = 0
    const worker = async () => {
      while (next < decisions) await decide(next++)
    }
    await Promise.all(Array.from({ length: CONNECTIONS }, worker))
    return decisions / ((performance.now() - began) / 1_000)
  },
})
