/** A crash of Postgres hands out again the transaction ids that had not reached the disk: nothing may be lost by that. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Sql } from 'postgres'
import { backendKind } from '../support/backend.ts'
import { mintToken } from '../support/token.ts'
import { WireClient } from '../support/wire-client.ts'
import { untilPostgresAnswers } from './checkpoint.ts'
import { History } from './history.ts'
import { createTortureWorld } from './world.ts'

setDefaultTimeout(120_000)

const xmax = async (sql: Sql) =>
  Number((await sql`select pg_snapshot_xmax(pg_current_snapshot())::text as xmax`)[0]!.xmax)

test.skipIf((await backendKind()) !== 'postgres')(
  'I4: a change whose transaction id was used before a crash arrives',
  async () => {
    const history = new History(join(tmpdir(), `datum-crashed-xid-${process.pid}.log`))
    await using world = await createTortureWorld(history)
    const { sql, cluster, servers } = world
    await sql`insert into notes (id, org_id, size) values (1, 'a', 0)`
    const client = await WireClient.open(servers[0]!.url, { authRequired: true })
    await client.authenticate(await mintToken({ sub: 'u', org_id: 'a', role: 'member' }))
    const view = await client.subscribe({ table: 'notes' })

    // Whether the ids are lost is up to the WAL writer, so this is tried until they are.
    for (let attempt = 1, isReused = false; !isReused; attempt++) {
      if (attempt > 20) throw new Error('no crash lost a transaction id')
      for (let n = 0; n < 20; n++)
        await sql.begin((tx) => tx`select pg_current_xact_id()`.then(() => tx.unsafe('rollback and chain')))
      const before = await xmax(sql)
      // The server looks at the log now. A NOTIFY alone does not make Postgres write to the disk at once.
      await sql`select pg_notify('datum', '')`
      while (Number(Object.values(await client.ping())[0]?.split(':')[1]) < before) await Bun.sleep(20)
      // The servers must not look in between: what they saw of the recovered Postgres would mend their cursors.
      await servers[0]!.freeze(() =>
        servers[1]!.freeze(async () => {
          await cluster.halt('immediate')
          await cluster.start()
          await untilPostgresAnswers(world)
          // All but a few, so that the next writer gets one of them.
          isReused = (await xmax(sql)) < before - 15
          if (isReused) await sql`update notes set size = 77 where id = 1`
        }),
      )
    }

    await client.until(() => view.rows.get('1')?.size === 77, 'the change of after the crash is shown')
    expect(view.ended).toBeNull()
    client.kill()
  },
)
