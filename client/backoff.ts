/** How long to wait before the next try. */

interface Backoff {
  /** Longest wait after the first failure; it doubles with each further one. */
  readonly firstMs: number
  readonly capMs: number
}

/** For lost connections: quick at first, since most losses are short. */
export const RECONNECT: Backoff = { firstMs: 1_000, capMs: 30_000 }

/** After close code 4429: this client sent more than anybody needs to, and would soon do so again. */
export const RATE_LIMITED: Backoff = { firstMs: 20_000, capMs: 120_000 }

/** For a view that the server cannot give at the moment: somebody must mend the table first. */
export const TABLE_UNSERVED: Backoff = { firstMs: 5_000, capMs: 60_000 }

/** For a token function that fails while the old token still serves. */
export const TOKEN: Backoff = { firstMs: 1_000, capMs: 30_000 }

/**
 * The wait after this many failures in a row (1 is the first). The upper half of it is left to chance, so that a
 * thousand clients of a server that went down do not come back in the same instant.
 */
export function backoffMs({ firstMs, capMs }: Backoff, failures: number, random: () => number): number {
  const longestMs = Math.min(capMs, firstMs * 2 ** Math.max(failures - 1, 0))
  return Math.round(longestMs * (0.5 + random() / 2))
}
