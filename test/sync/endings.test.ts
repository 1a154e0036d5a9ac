/** Ends and answers that come in the wrong order. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { endOf } from '../../src/sync/end-code.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'

/** The embedded Postgres is one session: whatever runs there holds up everything, as docs/ARCHITECTURE.md says. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(TEST_TIMEOUT_MS)
const alice = { sub: 'alice', org_id: 'a' }

onServer('a table altered while a resume is being looked up: no `subscribed` after `ended`', async () => {
  await using world = await createWorld()
  await world.put({ org: 'a' })
  const first = await world.watch(alice)
  const client = await world.connect(alice)
  await first.client.close()
  await world.admin.begin(async (transaction) => {
    // The log is locked, so the resume waits while the table is found altered (within 5 s).
    await transaction`lock table datum.change in access exclusive mode`
    client.startResume(first.view, { bbox: ZURICH })
    await Bun.sleep(300)
    await world.admin`alter table features add column extra text`
    await Bun.sleep(7_000)
  })
  const view = client.view('s')
  await client.until(() => view.complete >= 0 || view.ended !== null, 'complete or ended')
  const again = await client.subscribe({ bbox: ZURICH })
  expect(again.rows.size).toBe(1)
})

test('I5: a broken pipe or a lookup that failed for now ends no subscription', () => {
  for (const code of ['EPIPE', 'EAI_AGAIN', 'ECONNRESET', 'ENOTFOUND', 'CONNECTION_CLOSED', '28P01', '08P01'])
    expect(`${code} ${endOf(code).isFinal}`).toBe(`${code} false`)
  // Of TLS and of logging in.
  for (const code of ['CERT_HAS_EXPIRED', 'DEPTH_ZERO_SELF_SIGNED_CERT', 'SASL_SIGNATURE_MISMATCH'])
    expect(`${code} ${endOf(code).isFinal}`).toBe(`${code} false`)
  // What would come of it again, or is a mistake of the server's own.
  for (const code of ['MAX_PARAMETERS_EXCEEDED', 'UNDEFINED_VALUE', 'TypeError'])
    expect(`${code} ${endOf(code).isFinal}`).toBe(`${code} true`)
})
