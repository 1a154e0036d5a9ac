/** How many edits an address may make: a bucket for each that refills evenly over a minute. */

export interface RateLimit {
  /** Takes that many from the address's bucket, or nothing if it has not as many. */
  take(address: string, count: number): boolean
}

/**
 * Addresses whose buckets are kept. With more within a minute, those that were heard of least recently are forgotten,
 * and begin anew with a full one; some megabytes of memory.
 */
export const BUCKETS_MAX = 50_000

interface Bucket {
  readonly left: number
  readonly at: number
}

/** `perMinute` 0: everything is allowed. `now` in milliseconds. */
export function createRateLimit(perMinute: number, now: () => number = Date.now): RateLimit {
  if (perMinute === 0) return { take: () => true }
  /** In the order in which they were last used. */
  const buckets = new Map<string, Bucket>()
  const refilled = ({ left, at }: Bucket) => Math.min(perMinute, left + ((now() - at) / 60_000) * perMinute)
  return {
    take(address, count) {
      const left = refilled(buckets.get(address) ?? { left: perMinute, at: now() })
      // A batch larger than the bucket could never pass: it is let through when the bucket is full, and empties it.
      const isAllowed = left >= Math.min(count, perMinute)
      // Deleted and set again, it goes to the end.
      buckets.delete(address)
      buckets.set(address, { left: isAllowed ? Math.max(0, left - count) : left, at: now() })
      if (buckets.size > BUCKETS_MAX) buckets.delete(buckets.keys().next().value as string)
      return isAllowed
    },
  }
}
