/**
 * Settings that everything here relies on, whatever the role, the database or the cluster has: for statements that read
 * rows or write them (as-principal.ts), or read the log (feed.ts). Poolers that keep sessions apart by what a client asked
 * for at its start know only time zone and date style (postgres.ts), so these are set where they count.
 */

/**
 * Expressions, all true, for before anything is planned or written out. `row_security`: that policies filter, where `off`
 * makes them an error (Postgres §20.11.1). `extra_float_digits`: numbers with all their digits (Postgres §8.1.3), without
 * which a row is not in its box. Local to the transaction.
 */
export const EXPECTED_SETTINGS_SQL = `set_config('row_security', 'on', true) is not null
  and set_config('extra_float_digits', '1', true) is not null
  and set_config('IntervalStyle', 'postgres', true) is not null`
