/**
 * The application: random SQL past the server, in every form in which transactions come. It is told of conflicts and of
 * a Postgres that is away; any other error is a write that failed because of datum.
 */
import type { TransactionSql } from 'postgres'
import type { Random } from '../support/random.ts'
import { ROW_ORGS, type TABLES } from './model.ts'
import { placeSql, randomId } from './places.ts'
import type { Actor, TortureWorld } from './world.ts'

/** Conflicts between transactions, lock timeouts, and a Postgres that is going, gone or coming. */
const EXPECTED =
  /^(?:23505|40P01|40001|55P03|57P0[1-5]|08[0-9A-Z]{3}|CONNECTION_[A-Z]+|CONNECT_TIMEOUT|E[A-Z]+)$/

export class SqlWriter implements Actor {
  constructor(
    readonly name: string,
    private readonly world: TortureWorld,
    private readonly random: Random,
  ) {}

  async act(steps: number): Promise<void> {
    for (let step = 0; step < steps; step++) {
      await this.#attempt(this.random.weighted(this.#operations))
      await Bun.sleep(this.random.below(120))
    }
  }

  readonly #operations: readonly (readonly [number, () => Promise<unknown>])[] = [
    [20, () => this.#run(this.#statement())],
    [3, () => this.#run(Array.from({ length: 3 }, () => this.#statement()).join(';\n'))],
    [3, () => this.#transaction(0)],
    [2, () => this.#transaction(500 + this.random.below(2_500))],
    [2, () => this.#earlyXid()],
    [0.3, () => this.#run('truncate features')],
    [0.3, () => this.#run('truncate notes')],
    [0.2, () => this.#run('vacuum full features')],
  ]

  /** One that fills the tables. */
  async fill(): Promise<void> {
    await this.#attempt(() => this.#run(this.#bulk()))
    for (let n = 0; n < 30; n++) await this.#attempt(() => this.#run(this.#insert('notes')))
  }

  #run(statement: string): Promise<unknown> {
    this.world.history.did(this.name, `sql ${statement.replaceAll(/\s+/g, ' ').slice(0, 300)}`)
    return this.world.sql.unsafe(statement)
  }

  /** With a savepoint that is undone, and perhaps undone as a whole; perhaps long after its statements. */
  async #transaction(holdMs: number): Promise<void> {
    const [first, undone, last] = [this.#statement(), this.#statement(), this.#statement()]
    const rollsBack = this.random.chance(0.3)
    this.world.history.did(this.name, `transaction of ${holdMs} ms${rollsBack ? ', rolled back' : ''}`)
    await this.world.sql.begin(async (tx) => {
      await tx.unsafe(`set local lock_timeout = '3s'`)
      await this.#step(tx, first)
      await tx.unsafe('savepoint s')
      await this.#step(tx, undone)
      await tx.unsafe('rollback to savepoint s')
      await Bun.sleep(holdMs)
      await this.#step(tx, last)
      if (rollsBack) await tx.unsafe('rollback and chain')
    })
    this.world.history.note(this.name, 'transaction over')
  }

  async #step(tx: TransactionSql, statement: string): Promise<void> {
    this.world.history.note(this.name, `in transaction ${statement.replaceAll(/\s+/g, ' ').slice(0, 300)}`)
    await tx.unsafe(statement)
  }

  /** A transaction that had its xid long before its first change. */
  async #earlyXid(): Promise<void> {
    const [statement, waitMs] = [this.#statement(), this.random.below(300)]
    await this.world.sql.begin(async (tx) => {
      await tx`select pg_current_xact_id()`
      await Bun.sleep(waitMs)
      await this.#step(tx, statement)
    })
  }

  #statement(): string {
    const { random } = this
    const table = random.chance(0.7) ? 'features' : 'notes'
    const id = () => `'${randomId(random, table)}'`
    const one = (set: string) => `update ${table} set ${set} where id = ${id()}`
    const choices: (readonly [number, () => string])[] = [
      [6, () => this.#insert(table)],
      [5, () => one('size = size + 1')],
      [4, () => one(`org_id = ${this.#org()}`)],
      [2, () => one(`hidden = not hidden`)],
      [3, () => `delete from ${table} where id = ${id()}`],
      [1, () => `update ${table} set org_id = ${this.#org()} where size % 7 = ${random.below(7)}`],
      [1, () => `update ${table} set size = size + 1`],
      [0.4, () => `delete from ${table} where size % 9 = ${random.below(9)}`],
      [1, () => this.#bulk()],
    ]
    if (table === 'features') {
      choices.push(
        [4, () => one(`geom = ${placeSql(random)}`)],
        [1, () => `update features set geom = ${placeSql(random)} where size % 5 = ${random.below(5)}`],
        [1, () => `update features set geom = st_translate(geom, 1, 0) where st_x(st_centroid(geom)) < 100`],
        [0.5, () => `update features set id = gen_random_uuid() where id = ${id()}`],
      )
    }
    return random.weighted(choices)()
  }

  #insert(table: (typeof TABLES)[number]): string {
    const { random } = this
    const id = `'${randomId(random, table)}'`
    const values = `${id}, ${this.#org()}, ${random.below(99)}`
    return table === 'notes'
      ? `insert into notes (id, org_id, size) values (${values}) on conflict (id) do update set org_id = excluded.org_id`
      : `insert into features (id, org_id, size, geom) values (${values}, ${placeSql(random)})
         on conflict (id) do update set org_id = excluded.org_id, geom = excluded.geom`
  }

  /** Hundreds of rows, large ones: what makes snapshots long and buffers full. */
  #bulk(): string {
    const orgs = ROW_ORGS.map((org) => (org === null ? 'null' : `'${org}'`))
    return `insert into features (id, org_id, size, pad, geom)
      select format('00000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid,
        (array[${orgs}])[1 + n * ${1 + this.random.below(7)} % ${orgs.length}], n,
        repeat('${this.random.pick(['x', 'y', 'z'])}', ${this.random.pick([10, 1_000, 4_000])}),
        st_setsrid(st_makepoint(n % 25 - 12, n * ${1 + this.random.below(9)} % 25 - 12), 4326)
      from generate_series(0, 399) n on conflict (id) do update set size = excluded.size, pad = excluded.pad, geom = excluded.geom`
  }

  #org(): string {
    const picked = this.random.pick(ROW_ORGS)
    return picked === null ? 'null' : `'${picked}'`
  }

  async #attempt(operation: () => Promise<unknown>): Promise<void> {
    try {
      await operation()
    } catch (error) {
      const code = String((error as { code?: unknown }).code)
      this.world.history.note(this.name, `failed ${code}`)
      if (!EXPECTED.test(code))
        this.world.history.violation(this.name, `a write failed: ${code} ${String(error)}`)
    }
  }
}
