/** What datum costs the application's own writes. */
import { join } from 'node:path'
import { BOX, createDataset, type Dataset, tenantId } from '../dataset.ts'
import { figure, type Pair } from '../figure.ts'
import { startHelper } from '../helper-process.ts'
import type { Figure, Row } from '../row.ts'
import { startServer } from '../server-process.ts'

const ROWS = 10_000
const TENANTS = 10
const SOCKETS = 100
const WRITERS = 8
const SECONDS = 3
const SCRIPT = `\\set n random(0, ${ROWS - 1})
update features set rev = rev + 1 where n = :n;
`

export const appWrites: Row = {
  name: 'app-writes',
  question: 'How many transactions a second do 8 concurrent writers of single rows keep?',
  floor:
    'The same writers (pgbench, prepared statements) on the same table without triggers and without a server.',
  mustBe: '≥ 85 % with a server connected and 100 sockets, with fsync on as applications have it',
  async run(world) {
    const cluster = await world.cluster()
    await using plain = await createDataset(cluster, { rows: ROWS, tenants: TENANTS, watched: false })
    await using dataset = await createDataset(cluster, { rows: ROWS, tenants: TENANTS })
    const perSecond = async ({ adminUrl }: Dataset) => {
      const pgbench = Bun.spawn(
        [
          ...[join(cluster.binaries, 'pgbench'), '--no-vacuum', '--protocol=prepared', `--client=${WRITERS}`],
          ...[`--time=${world.size(SECONDS, 1)}`, '--file=/dev/stdin', adminUrl],
        ],
        { stdin: new Blob([SCRIPT]), stdout: 'pipe', stderr: 'pipe' },
      )
      const said = await new Response(pgbench.stdout).text()
      const found = /tps = ([\d.]+)/.exec(said)?.[1]
      if (found === undefined) throw new Error(`pgbench: ${await new Response(pgbench.stderr).text()}`)
      return Number(found)
    }
    // Triggers alone, in turns with the rest, to tell what they cost from what the server does.
    await using lone = await createDataset(cluster, { rows: ROWS, tenants: TENANTS })
    // The least that a log by triggers can be, to tell what any such log costs.
    await using least = await createDataset(cluster, { rows: ROWS, tenants: TENANTS, watched: false })
    await logLeast(least)
    // Pages get room for new versions of rows (HOT) in all of them, before any of them is measured.
    for (const one of [plain, least, lone, dataset]) await perSecond(one)
    await using server = await startServer({ databaseUrl: dataset.appUrl })
    await using clients = startHelper(join(import.meta.dir, '../load/sockets.ts'))
    const users = Array.from({ length: SOCKETS }, (_, n) => ({
      sub: `user-${n}`,
      org_id: tenantId(n % TENANTS),
    }))
    await clients.call('open', { url: server.socketUrl, bbox: BOX, users, atATime: 50 })
    const figures: Figure[] = []
    for (const fsync of ['on', 'off']) {
      await plain.admin.unsafe(`alter system set fsync = ${fsync}`)
      await plain.admin`select pg_reload_conf()`
      await perSecond(plain)
      const rounds = await world.inRounds(async () => ({
        without: await perSecond(plain),
        least: await perSecond(least),
        triggers: await perSecond(lone),
        served: await perSecond(dataset),
      }))
      const kept = (what: string, pairs: readonly Pair[], mustBe: Figure['mustBe']) =>
        figure({
          of: `fsync ${fsync}: ${what}`,
          unit: 'transactions/s',
          rounds: pairs,
          as: 'percent',
          mustBe,
        })
      figures.push(
        kept(
          'triggers, server, 100 sockets',
          rounds.map(({ served, without }) => [served, without]),
          // Databases of applications have it on. Off, nothing but CPU is left: what datum adds looks as large as it can.
          fsync === 'on' ? { atLeast: 85 } : null,
        ),
        kept(
          'triggers alone',
          rounds.map(({ triggers, without }) => [triggers, without]),
          null,
        ),
        kept(
          'a trigger that inserts the key into a table',
          rounds.map(({ least, without }) => [least, without]),
          null,
        ),
      )
    }
    return figures
  },
}

async function logLeast({ admin }: Dataset): Promise<void> {
  await admin.unsafe(`
    create unlogged table least_log (xid xid8 default pg_current_xact_id(), id text);
    create index on least_log (xid);
    create function log_least() returns trigger language plpgsql as $$
    begin
      insert into least_log (id) values (new.id);
      return null;
    end $$;
    create trigger log_least after update on features for each row execute function log_least();`)
}
