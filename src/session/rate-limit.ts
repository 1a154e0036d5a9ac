/** How many edits an address may make: a bucket for each that refills evenly over a minute. */

export interface RateLimit {
  /** Takes that many from the address's bucket, or nothing if it has not as many. */
  take(address: string, count: number): boolean
}

/** Buckets that are full again are forgotten once there are this many. */
const BUCKETS_MAX = 10_000

interface Bucket {
  left: number
  at: number
}

/** `perMinute` 0: everything is allowed. `now` in milliseconds. */
export function createRateLimit(perMinute: number, now: () => number = Date.now): RateLimit {
  if (perMinute === 0) return { take: () => true }
  const buckets = new Map<string, Bucket>()
  const refilled = ({ left, at }: Bucket) => Math.min(perMinute, left + ((now() - at) / 60_000) * perMinute)
  return {
    take(address, count) {
      const bucket = buckets.get(address) ?? { left: perMinute, at: now() }
      const left = refilled(bucket)
      // A batch larger than the bucket could never pass: it is let through when the bucket is full, and empties it.
      const isAllowed = left >= Math.min(count, perMinute)
      buckets.set(address, { left: isAllowed ? Math.max(0, left - count) : left, at: now() })
      if (buckets.size > BUCKETS_MAX) {
        for (const [key, entry] of buckets) if (refilled(entry) >= perMinute) buckets.delete(key)
      }
      return isAllowed
    },
  }
}
