/**
 * Settings that the text of values depends on, as everything here expects them, whatever the role, the database or the
 * cluster has: for statements that read rows (as-principal.ts) or the log (feed.ts). Poolers that keep sessions apart by
 * what a client asked for at its start know only time zone and date style (postgres.ts), so these are set where they count.
 */

/**
 * Expressions, all true, for before anything is written out. `extra_float_digits`: numbers with all their digits (Postgres
 * §8.1.3), without which a row is not in its box. Local to the transaction.
 */
export const OUTPUT_SETTINGS_SQL = `set_config('extra_float_digits', '1', true) is not null
  and set_config('IntervalStyle', 'postgres', true) is not null`
