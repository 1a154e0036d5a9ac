import { describe, expect, test } from 'bun:test'
import type { DatumError } from '../../client/datum-error.ts'
import { readToken } from '../../client/jwt.ts'
import { clockAheadMs, refreshAtMs, TokenRefresh } from '../../client/token-refresh.ts'
import { TokenSource } from '../../client/token-source.ts'
import { FakeWorld, jwt, START_MS, settle, watch } from './fake-world.ts'

const DAY_SECONDS = 86_400

describe('when a token is refreshed', () => {
  const seconds = (token: string, nowSeconds = 0) => {
    const at = refreshAtMs(readToken(token), START_MS + nowSeconds * 1000)
    return at === null ? null : (at - START_MS) / 1000
  }

  test('60 s before its end', () => {
    expect(seconds(jwt({}, 3600))).toBe(3540)
    expect(seconds(jwt({}, 120))).toBe(60)
    expect(seconds(jwt({}, 3600), 3500)).toBe(3540)
  })

  test('at two thirds of what remains of a life shorter than two minutes', () => {
    expect(seconds(jwt({}, 90))).toBe(60)
    expect(seconds(jwt({}, 30), 15)).toBe(25)
    expect(seconds(jwt({ exp: START_MS / 1000 + 30 }))).toBe(20)
  })

  test('never sooner than a second from now', () => {
    expect(seconds(jwt({}, 1))).toBe(1)
    expect(seconds(jwt({}, 3600), 3599)).toBe(3600)
    expect(seconds(jwt({}, 3600), 9999)).toBe(10_000)
  })

  test('never, if its end is unknown', () => {
    expect(seconds('opaque')).toBeNull()
    expect(seconds(jwt({ sub: 'a' }))).toBeNull()
  })
})

test('an accepted token tells how wrong the clock of this device is', () => {
  const token = readToken(jwt({}, 300))
  expect(clockAheadMs(token, START_MS + 10_000)).toBe(0)
  expect(clockAheadMs(token, START_MS - 600_000)).toBe(-600_000)
  expect(clockAheadMs(token, START_MS + 900_000)).toBe(900_000)
  // Just past its end: the server's tolerance, not our clock.
  expect(clockAheadMs(token, START_MS + 330_000)).toBe(0)
})

function rig(answer: (call: number) => string | Promise<string>) {
  const world = new FakeWorld()
  const rigged = {
    world,
    calls: 0,
    atSeconds: [] as number[],
    tokens: [] as string[],
    failures: [] as DatumError[],
  }
  const source = new TokenSource(() => {
    rigged.calls++
    rigged.atSeconds.push((world.clock.nowMs - START_MS) / 1000)
    return answer(rigged.calls)
  }, world.clock)
  const refresh: TokenRefresh = new TokenRefresh({
    source,
    environment: world.environment,
    onToken: (token) => {
      rigged.tokens.push(token)
      refresh.accepted(token)
    },
    onFailure: (error) => rigged.failures.push(error),
  })
  return { ...rigged, rigged, refresh, source }
}

test('a token of one minute is refreshed again and again, each time before its end', async () => {
  const r: ReturnType<typeof rig> = rig(() => jwt({}, 60, (r.world.clock.nowMs - START_MS) / 1000))
  r.refresh.accepted(jwt({}, 60))
  await r.world.clock.advance(130_000)
  expect(r.rigged.atSeconds).toEqual([40, 80, 120])
  expect(r.rigged.tokens).toHaveLength(3)
})

test('a token of 60 days is refreshed once, 60 s before its end: timers do not overflow', async () => {
  const r = rig(() => jwt({}, 120 * DAY_SECONDS))
  r.refresh.accepted(jwt({}, 60 * DAY_SECONDS))
  await r.world.clock.advance(1_000)
  expect(r.rigged.calls).toBe(0)
  await r.world.clock.advance(60 * DAY_SECONDS * 1000)
  expect(r.rigged.atSeconds).toEqual([60 * DAY_SECONDS - 60])
})

test('after a sleep past the refresh it happens at once on waking, and within 30 s if nothing says so', async () => {
  for (const told of [true, false]) {
    const r = rig(() => jwt({}, 7200))
    r.refresh.accepted(jwt({}, 600))
    await r.world.clock.advance(10_000)
    r.world.clock.sleep(3_000_000)
    if (told) {
      r.refresh.wake()
      await settle()
    } else {
      await r.world.clock.advance(30_000)
    }
    expect(r.rigged.calls).toBe(1)
  }
})

test('a function that throws is asked again with backoff until it works, and each failure is told', async () => {
  const r = rig((call) => {
    if (call <= 3) throw new Error('the login service is away')
    return jwt({}, 3600, 120)
  })
  r.refresh.accepted(jwt({}, 180))
  await r.world.clock.advance(119_000)
  expect(r.rigged.calls).toBe(0)
  await r.world.clock.advance(30_000)
  expect(r.rigged.calls).toBe(4)
  expect(r.rigged.atSeconds).toEqual([120, 120.75, 122.25, 125.25])
  expect(r.rigged.failures.map(({ code }) => code)).toEqual(['token_failed', 'token_failed', 'token_failed'])
  expect((r.rigged.failures[0]!.cause as Error).message).toBe('the login service is away')
  expect(r.rigged.tokens).toHaveLength(1)
})

test('a function that hangs is given 20 s, is not called twice meanwhile, and its late answer is ignored', async () => {
  let release: (token: string) => void = () => {}
  const r = rig((call) =>
    call === 1
      ? new Promise((resolve) => {
          release = resolve
        })
      : jwt({ n: 2 }, 3600),
  )
  r.refresh.accepted(jwt({}, 180))
  await r.world.clock.advance(120_000)
  expect(r.rigged.calls).toBe(1)
  r.refresh.wake()
  const alsoWaiting = watch(r.source.get())
  await r.world.clock.advance(19_000)
  expect(r.rigged.calls).toBe(1)
  await r.world.clock.advance(5_000)
  expect(alsoWaiting.error).toMatchObject({ code: 'token_failed' })
  expect(r.rigged.calls).toBe(2)
  release(jwt({ n: 1 }, 3600))
  await settle()
  expect(r.rigged.tokens).toEqual([jwt({ n: 2 }, 3600)])
})

test('the same token again is not sent; the function is asked again until it has another', async () => {
  const cached = jwt({}, 180)
  const fresh = jwt({}, 3600, 150)
  const r = rig((call) => (call < 4 ? cached : fresh))
  r.refresh.accepted(cached)
  await r.world.clock.advance(179_000)
  expect(r.rigged.tokens).toEqual([fresh])
  expect(r.rigged.failures).toEqual([])
})

test('a token that has already ended is not sent: it would cost the socket', async () => {
  const ended = jwt({}, 60, -600)
  const fresh = jwt({}, 3600, 100)
  const r = rig((call) => (call === 1 ? ended : fresh))
  r.refresh.accepted(jwt({}, 180))
  await r.world.clock.advance(130_000)
  expect(r.rigged.tokens).toEqual([fresh])
})

test.each([
  ['nothing', undefined],
  ['null', null],
  ['an empty string', ''],
  ['an object', { token: 'x' }],
  ['far too much', 'x'.repeat(20_000)],
])('a function that returns %s has failed, and the message does not quote it', async (_name, value) => {
  const r = rig(() => value as string)
  r.refresh.accepted(jwt({}, 180))
  await r.world.clock.advance(120_500)
  expect(r.rigged.failures[0]?.code).toBe('token_failed')
  expect(r.rigged.failures[0]!.message.length).toBeLessThan(100)
})

test('on a device whose clock is 20 minutes wrong, tokens of 5 minutes are still refreshed in their time', async () => {
  for (const aheadSeconds of [-1200, 1200]) {
    const r: ReturnType<typeof rig> = rig(() =>
      jwt({}, 300, (r.world.clock.nowMs - START_MS) / 1000 - aheadSeconds),
    )
    r.refresh.accepted(jwt({}, 300, -aheadSeconds))
    await r.world.clock.advance(500_000)
    expect(r.rigged.atSeconds).toEqual([240, 480])
    expect(r.rigged.tokens).toHaveLength(2)
  }
})

test('nothing happens after the socket is lost, not even for a call under way', async () => {
  let release: (token: string) => void = () => {}
  const r = rig(
    () =>
      new Promise((resolve) => {
        release = resolve
      }),
  )
  r.refresh.accepted(jwt({}, 180))
  await r.world.clock.advance(120_000)
  r.refresh.suspend()
  release(jwt({}, 3600))
  await r.world.clock.advance(600_000)
  expect(r.rigged.calls).toBe(1)
  expect(r.rigged.tokens).toEqual([])
  expect(r.world.clock.timerCount).toBe(0)
})

test('a static token is never refreshed', async () => {
  const world = new FakeWorld()
  const token = jwt({}, 180)
  const refresh = new TokenRefresh({
    source: new TokenSource(token, world.clock),
    environment: world.environment,
    onToken: () => expect.unreachable(),
    onFailure: () => expect.unreachable(),
  })
  refresh.accepted(token)
  expect(world.clock.timerCount).toBe(0)
})
