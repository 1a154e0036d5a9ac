/** What reaches the log: facts for the operator, never a token, a secret, a claim's value or a row. Invariant 12. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import type { Log } from '../../src/observe/log.ts'
import { createWorld, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { features } from '../support/table-spec.ts'
import { mintToken } from '../support/token.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

/** Keeps everything that is logged, at every level. */
function collectingLog(): { log: Log; lines: string[] } {
  const lines: string[] = []
  const keep = (...parts: unknown[]) => {
    lines.push(parts.map((part) => (part instanceof Error ? Bun.inspect(part) : Bun.inspect(part))).join(' '))
  }
  const log = { error: keep, warn: keep, info: keep, debug: keep, success: keep } as unknown as Log
  return { log, lines }
}

test('I12: whatever goes wrong, no token, claim, row or value is logged', async () => {
  await using world = await createWorld({
    tables: [
      features({
        columns: ', code text unique, amount int check (amount < 10)',
        policies: `alter table features enable row level security; alter table features force row level security;
          create policy p on features using (org_id = datum.claim('org_id') and 1 / (1 - datum.claim('n')::int) >= 0)`,
      }),
    ],
  })
  const { log, lines } = collectingLog()
  const server = await world.addServer({ log })
  await world.put({ org: 'classified-org', name: 'classified-row' })
  const claims = { sub: 'classified-sub', org_id: 'classified-org', n: 0 }
  const token = await mintToken(claims)
  const client = await world.open({ server })
  await client.authenticate(token)
  await client.subscribe({ bbox: ZURICH })
  await client.write([
    { op: 'insert', columns: { org_id: 'classified-other', name: 'classified-value' } },
    { op: 'insert', columns: { org_id: 'classified-org', code: 'classified-code' } },
    { op: 'insert', columns: { org_id: 'classified-org', code: 'classified-code' } },
    { op: 'insert', columns: { org_id: 'classified-org', amount: 11 } },
    { op: 'insert', columns: { org_id: 'classified-org', amount: 'classified-number' } },
    { op: 'insert', columns: { 'classified-column': 1 } },
    { op: 'update', id: 'classified-id', columns: { name: 'classified-value' } },
  ])
  // A policy that fails, and one that fails over a claim's text.
  for (const n of [1, 'classified-claim']) {
    const failing = await world.open({ server })
    await failing.authenticate(await mintToken({ ...claims, n }))
    expect((await failing.subscribe({ bbox: ZURICH })).ended?.code).toBe('policy_error')
  }
  const refused = [await mintToken({ ...claims, exp: 1 }), `${token}classified`, 'classified-nonsense']
  for (const bad of refused) {
    const socket = await world.open({ server })
    socket.send({ type: 'auth', token: bad })
    await socket.untilClosed()
  }
  client.sendRaw('{"type":"subscribe","sub":"classified-frame"')
  await client.untilClosed()
  const logged = lines.join('\n')
  expect(logged).not.toContain('classified')
  for (const part of token.split('.').slice(1)) expect(logged).not.toContain(part)
  expect(logged).not.toContain('a secret of tests')
})
