/** What a page of another site, or anybody on the network, gets out of the HTTP side. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { CloseCode } from '../../src/wire/close-codes.ts'
import { createWorld, TEST_TIMEOUT_MS, ZURICH } from '../support/fixture.ts'
import { mintToken } from '../support/token.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

test('I1: a token in a cookie or a header, which a browser sends by itself, lets nobody in', async () => {
  await using world = await createWorld()
  const token = await mintToken({ sub: 'alice', org_id: 'a' })
  for (const headers of [
    { Cookie: `token=${token}; access_token=${token}; sb-access-token=${token}` },
    { Authorization: `Bearer ${token}` },
  ]) {
    const client = await world.open({ headers })
    client.send({ type: 'subscribe', sub: 's', bbox: ZURICH })
    expect((await client.untilClosed()).code).toBe(CloseCode.unauthorized)
    expect(client.frames.map(({ type }) => type)).toEqual(['error'])
  }
})

test('I12: what anybody may read over HTTP names no table, user, claim or row', async () => {
  await using world = await createWorld()
  await world.put({ org: 'classified-org', name: 'classified-row' })
  const { client } = await world.watch({ sub: 'classified-sub', org_id: 'classified-org' })
  await client.write([{ op: 'insert', columns: { org_id: 'classified-org', code: 'classified-column' } }])
  for (const path of ['/', '/metrics', '/healthz', '/readyz', '/ws', '/classified']) {
    const answer = await fetch(`${world.server.url}${path}`)
    const body = await answer.text()
    expect({ path, body }).not.toMatchObject({ body: expect.stringMatching(/classified|features|org_id/) })
    expect(answer.headers.get('access-control-allow-origin')).toBeNull()
    expect(answer.headers.get('set-cookie')).toBeNull()
  }
})
