/** What goes wrong with Postgres and with the servers, one thing of each at a time. */
import type { Random } from '../support/random.ts'
import { type Policy, readingSql } from './model.ts'
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

  protected did(what: string): void {
    this.world.history.did(this.name, what)
  }
}

export class PostgresFaults extends FaultInjector {
  readonly name = 'postgres'
  protected readonly faults: readonly Fault[] = [
    [1, () => this.#restart('fast')],
    [1, () => this.#restart('immediate')],
    [1, () => this.#crashAfterRollback()],
    [1, () => this.#killBackend()],
    [3, () => this.#terminate('backends', `random() < ${this.random.pick([0.2, 0.5, 1])}`)],
    [2, () => this.#terminate('listeners', `query ilike 'listen%'`)],
    [3, () => this.#prune()],
    [3, () => this.#alterPolicy()],
  ]

  async #restart(mode: 'fast' | 'immediate'): Promise<void> {
    const awayMs = this.random.chance(0.5) ? 0 : this.random.below(4_000)
    this.did(`stop-${mode} for ${awayMs} ms`)
    await this.world.cluster.halt(mode)
    await Bun.sleep(awayMs)
    await this.world.cluster.start()
    this.world.history.note(this.name, 'started')
  }

  /** Transaction ids that were handed out and never reached the disk are handed out again. */
  async #crashAfterRollback(): Promise<void> {
    this.did('rollbacks-then-crash')
    for (let n = 0; n < 20; n++)
      await this.#quietly(() =>
        this.world.sql.begin((tx) =>
          tx`select pg_current_xact_id()`.then(() => tx.unsafe('rollback and chain')),
        ),
      )
    await this.#restart('immediate')
  }

  /** As the kernel does that is out of memory: all other backends end, and Postgres recovers by itself. */
  async #killBackend(): Promise<void> {
    await this.#quietly(async () => {
      const [row] = await this.world.sql<{ pid: number }[]>`
        select pid from pg_stat_activity where application_name = 'datum-server' order by random() limit 1`
      if (row === undefined) return
      this.did(`kill-backend ${row.pid}`)
      process.kill(row.pid, 'SIGKILL')
    })
  }

  async #terminate(which: string, condition: string): Promise<void> {
    this.did(`terminate-${which} where ${condition}`)
    await this.#quietly(() =>
      this.world.sql.unsafe(
        `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'datum-server' and ${condition}`,
      ),
    )
  }

  /** As if two hours had gone by since everything until now. */
  async #prune(): Promise<void> {
    this.did('prune')
    await this.#quietly(
      () => this.world.sql`insert into datum.tick (at, oldest_xid)
        values (now() - interval '2 hours', pg_snapshot_xmin(pg_current_snapshot()))`,
    )
    await this.#quietly(() => this.world.sql`select datum.prune('1 hour', '1 day')`)
  }

  async #alterPolicy(): Promise<void> {
    const next: Policy = this.random.pick(['open', 'strict'])
    const sleepMs = this.random.pick([0, 30, 100])
    this.did(`alter-policy to ${next}, slower by ${sleepMs} ms`)
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
    [2, () => this.#freeze()],
  ]

  async #restart(signal: 'SIGKILL' | 'SIGTERM', slots: readonly ServerSlot[]): Promise<void> {
    this.did(`${signal} ${slots.map(({ name }) => name)}`)
    await Promise.all(slots.map((slot) => slot.end(signal)))
    await Promise.all(slots.map((slot) => slot.start()))
    this.world.history.note(this.name, 'started')
  }

  async #freeze(): Promise<void> {
    const [slot, milliseconds] = [this.random.pick(this.world.servers), this.random.below(3_000)]
    this.did(`freeze ${slot.name} for ${milliseconds} ms`)
    await slot.freeze(() => Bun.sleep(milliseconds))
  }
}
