/** Makes the embedded database's owner look like a superuser's connection of its own, so that tests need not tell. */
import type { Sql, TransactionSql } from 'postgres'
import type { EmbeddedDatabase } from '../../src/db/embedded.ts'

/**
 * An `Sql` of which each statement or transaction runs as the owner, by itself. It does what the tests need of one:
 * tagged statements, `unsafe`, `begin`, and the helper for lists and names.
 */
export function ownerSql(database: EmbeddedDatabase): Sql {
  const run = (first: unknown, ...rest: unknown[]) => {
    const isStatement = Array.isArray(first) && 'raw' in first
    if (!isStatement) return (database.sql as unknown as (...values: unknown[]) => unknown)(first, ...rest)
    return database.asOwner(
      async (owner) => await owner(first as unknown as TemplateStringsArray, ...(rest as never[])),
    )
  }
  const methods = {
    unsafe: (text: string, parameters?: never[]) =>
      database.asOwner(async (owner) => await owner.unsafe(text, parameters)),
    begin: (work: (transaction: TransactionSql) => Promise<unknown>) =>
      database.asOwner((owner) => owner.begin(work)),
  }
  return Object.assign(run, methods) as unknown as Sql
}
