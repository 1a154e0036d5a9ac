/** Time that processes of one machine can compare: milliseconds since 1970, with the fraction that `Date.now` drops. */
export function now(): number {
  return performance.timeOrigin + performance.now()
}

/** How long `work` takes, in milliseconds. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await work()
  return performance.now() - began
}
