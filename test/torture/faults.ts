/** What goes wrong with Postgres and with the servers, one thing of each at a time. */
import type { Random } from '../support/random.ts'
import { duringCommit } from './held-commits.ts'
import { type Policy, readingSql } from './model.ts'
import { pruneLog } from './prune.ts'
import type { ServerSlot } from './servers.ts'
import type { Actor, TortureWorld } from './world.ts'

type Fault = readonly [weight: number, inject: () => Promise<unknown>]

abstract class FaultInjector implements Actor {
  abstract readonly name: string
  protected abstract readonly faults: readonly Fault[]

  constructor(
    protected readonly world: TortureWorld,
    protected readonly random: Random,
  ) {}

  async act(steps: number): Promise<void> {
    for (let step = 0; step < steps; step++) {
      const [pause, fault] = [this.random.below(2_000), this.random.weighted(this.faults)]
      await Bun.sleep(pause)
      await fault()
    }
  }

  protected did(kind: string, details = ''): void {
    this.world.history.fault(this.name, kind, details)
  }
}

export class PostgresFaults extends FaultInjector {
  readonly name = 'postgres'
  protected readonly faults: readonly Fault[] = [
    [1, () => this.#restart('fast')],
    [1, () => this.#restart('immediate')],
    [1, () => this.#crashAfterRollback()],
    [1, () => this.#killBackend()],
    [1, () => this.#crashAtCommit()],
    [2, () => this.#terminateAtCommit()],
    [3, () => this.#terminate('backends', `random() < ${this.random.pick([0.2, 0.5, 1])}`)],
    [2, () => this.#terminate('listeners', `query ilike 'listen%'`)],
    [3, () => this.#prune()],
    [3, () => this.#alterPolicy()],
  ]

  async #restart(mode: 'fast' | 'immediate'): Promise<void> {
    const awayMs = this.random.chance(0.5) ? 0 : this.random.below(4_000)
    this.did(mode === 'fast' ? 'Postgres restarted' : 'Postgres crashed', `for ${awayMs} ms`)
    await this.world.cluster.halt(mode)
    await Bun.sleep(awayMs)
    await this.world.cluster.start()
    this.world.history.note(this.name, 'started')
  }

  /** Transaction ids that were handed out and never reached the disk are handed out again. */
  async #crashAfterRollback(): Promise<void> {
    this.world.history.note(this.name, 'rollbacks, then a crash')
    for (let n = 0; n < 20; n++)
      await this.#quietly(() =>
        this.world.sql.begin((tx) =>
          tx`select pg_current_xact_id()`.then(() => tx.unsafe('rollback and chain')),
        ),
      )
    await this.#restart('immediate')
  }

  /** Commits that nobody was told of survive the crash. */
  async #crashAtCommit(): Promise<void> {
    await duringCommit(this.world, async () => {
      this.did('Postgres crashed between commit and answer')
      await this.world.cluster.halt('immediate')
      await this.world.cluster.start()
    })
  }

  async #terminateAtCommit(): Promise<void> {
    await duringCommit(this.world, async (sql) => {
      this.did('backends terminated between commit and answer')
      await sql`
        select pg_terminate_backend(pid) from pg_stat_activity
         where application_name = 'datum-server' and wait_event = 'SyncRep'`
    })
  }

  /** As the kernel does that is out of memory: all other backends end, and Postgres recovers by itself. */
  async #killBackend(): Promise<void> {
    await this.#quietly(async () => {
      const [row] = await this.world.sql<{ pid: number }[]>`
        select pid from pg_stat_activity where application_name = 'datum-server' order by random() limit 1`
      if (row === undefined) return
      this.did('backend killed', String(row.pid))
      process.kill(row.pid, 'SIGKILL')
    })
  }

  async #terminate(which: 'backends' | 'listeners', condition: string): Promise<void> {
    await this.#quietly(async () => {
      const rows = await this.world.sql.unsafe(
        `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'datum-server' and ${condition}`,
      )
      if (rows.length > 0) this.did(`${which} terminated`, `${rows.length} where ${condition}`)
    })
  }

  async #prune(): Promise<void> {
    this.did('log pruned')
    await this.#quietly(() => pruneLog(this.world.sql))
  }

  async #alterPolicy(): Promise<void> {
    const next: Policy = this.random.pick(['open', 'strict'])
    const sleepMs = this.random.pick([0, 30, 100])
    this.did('policy altered', `to ${next}, slower by ${sleepMs} ms`)
    this.world.policies.add(next)
    await this.#quietly(() =>
      this.world.sql.begin((tx) =>
        tx.unsafe(`set local lock_timeout = '4s';
          alter policy reading on features using (${readingSql(next, sleepMs)});
          alter policy reading on notes using (${readingSql(next, sleepMs)})`),
      ),
    )
  }

  /** What Postgres refuses, being down or busy, is not done. */
  async #quietly(work: () => Promise<unknown>): Promise<void> {
    await work().catch((error) => this.world.history.note(this.name, `refused: ${String(error)}`))
  }
}

export class ServerFaults extends FaultInjector {
  readonly name = 'servers'
  protected readonly faults: readonly Fault[] = [
    [3, () => this.#restart('SIGKILL', [this.random.pick(this.world.servers)])],
    [2, () => this.#restart('SIGTERM', [this.random.pick(this.world.servers)])],
    [1, () => this.#restart('SIGKILL', this.world.servers)],
    [2, () => this.#killAtCommit()],
    [2, () => this.#freeze()],
  ]

  async #restart(signal: 'SIGKILL' | 'SIGTERM', slots: readonly ServerSlot[]): Promise<void> {
    const what = signal === 'SIGKILL' ? 'killed' : 'restarted'
    this.did(
      `${slots.length === 1 ? 'server' : 'all servers'} ${what}`,
      String(slots.map(({ name }) => name)),
    )
    await Promise.all(slots.map((slot) => slot.end(signal)))
    await Promise.all(slots.map((slot) => slot.start()))
    this.world.history.note(this.name, 'started')
  }

  /** What was committed by then, and not answered, is sent again to whoever comes up. */
  async #killAtCommit(): Promise<void> {
    let areKilled = false
    await duringCommit(this.world, async () => {
      this.did('servers killed between commit and answer')
      areKilled = true
      await Promise.all(this.world.servers.map((slot) => slot.end('SIGKILL')))
    })
    if (!areKilled) return
    await Promise.all(this.world.servers.map((slot) => slot.start()))
    this.world.history.note(this.name, 'started')
  }

  async #freeze(): Promise<void> {
    const [slot, milliseconds] = [this.random.pick(this.world.servers), this.random.below(3_000)]
    this.did('server frozen', `${slot.name} for ${milliseconds} ms`)
    await slot.freeze(() => Bun.sleep(milliseconds))
  }
}
