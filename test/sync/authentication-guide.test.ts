/** The statements of the authentication guide, as they are written there, against a server. */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { createWorld, point, TEST_TIMEOUT_MS, type World, ZURICH } from '../support/fixture.ts'
import { guideBlock, guideBlocks } from '../support/guide.ts'
import type { TableSpec } from '../support/table-spec.ts'
import { mintToken } from '../support/token.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const orgOne = '11111111-1111-4111-8111-111111111111'
const orgTwo = '22222222-2222-4222-8222-222222222222'
const abc = 'aaaaaaaa-0000-4000-8000-000000000abc'
const xyz = 'aaaaaaaa-0000-4000-8000-000000000def'

/** "Connect as a non-superuser", without the role itself, which the cluster of the tests has. */
const RESTRICTED = guideBlock('sql', 'CREATE ROLE datum_app').replace(/^CREATE ROLE .*$/m, '')

const POLICIES = guideBlock('sql', 'CREATE POLICY tenant_isolation')
const TENANT_ISOLATION = statementOf(POLICIES, 'CREATE POLICY tenant_isolation')
const USER_WRITES_OWN = statementOf(POLICIES, 'CREATE POLICY user_writes_own')

function statementOf(sql: string, beginning: string): string {
  const statement = sql.split(/(?<=;)\n/).find((part) => part.includes(beginning))
  if (statement === undefined) throw new Error(`the guide has no statement ${beginning}`)
  return statement
}

/** The guide's table, with a column of the harness. */
const guideTable = (policies: string): TableSpec => ({
  name: 'features',
  geometryColumn: 'geom',
  sql: `${guideBlock('sql', 'CREATE TABLE features')} ALTER TABLE features ADD COLUMN size int;`,
  policies: RESTRICTED + policies,
})

describe('tenant_isolation', () => {
  test('two tenants never see each other’s rows, deletes included', async () => {
    await using world = await createWorld({ tables: [guideTable(TENANT_ISOLATION)] })
    const of = (org: string) => (row: { readonly [column: string]: unknown }) => row.org_id === org
    const [mine, theirs] = [await world.put({ org: orgOne }), await world.put({ org: orgTwo })]
    const claimsOne = { sub: 'user-abc', org_id: orgOne, role: 'member' }
    const one = await world.watch(claimsOne, { allowed: of(orgOne) })
    const two = await world.watch(
      { sub: 'user-xyz', org_id: orgTwo, role: 'member' },
      { allowed: of(orgTwo) },
    )
    expect([...one.view.rows.keys()]).toEqual([mine])
    expect([...two.view.rows.keys()]).toEqual([theirs])
    await world.admin`update features set name = 'changed'`
    await one.client.until(() => one.view.rows.get(mine)?.name === 'changed', 'one')
    await two.client.until(() => two.view.rows.get(theirs)?.name === 'changed', 'two')
    await world.admin`delete from features where id = ${theirs}`
    await two.client.until(() => two.view.rows.size === 0, 'deleted for two')
    await world.barrier(one.client, claimsOne)
    expect(JSON.stringify(one.client.frames)).not.toContain(theirs)
  })

  test('writes go through it in both directions', async () => {
    await using world = await createWorld({ tables: [guideTable(TENANT_ISOLATION)] })
    const theirs = await world.put({ org: orgTwo })
    const { client, view } = await world.watch({ sub: 'user-abc', org_id: orgOne })
    const id = crypto.randomUUID()
    const { edits } = await client.write([
      { op: 'insert', columns: { id, org_id: orgOne, geom: point(8.5, 47.5) } },
      { op: 'insert', columns: { org_id: orgTwo } },
      { op: 'update', id: theirs, columns: { name: 'x' } },
      { op: 'delete', id: theirs },
      { op: 'update', id, columns: { org_id: orgTwo } },
    ])
    expect(edits.map((edit) => (edit.status === 'applied' ? edit.status : edit.code))).toEqual([
      'applied',
      'forbidden',
      'not_found',
      'not_found',
      'forbidden',
    ])
    await client.until(() => view.rows.has(id), 'it is there')
  })

  test('a token without the claim gets policy_error, and always in the same way', async () => {
    await using world = await createWorld({ tables: [guideTable(TENANT_ISOLATION)] })
    await world.put({ org: orgOne })
    const outcomes = new Set<string>()
    for (let round = 0; round < 8; round++) {
      await (await world.watch({ sub: `with ${round}`, org_id: orgOne })).client.close()
      const client = await world.connect({ sub: `without ${round}` }, { allowed: () => false })
      const view = await client.subscribe({ bbox: ZURICH })
      outcomes.add(view.ended?.code ?? `${view.rows.size} rows`)
    }
    expect([...outcomes]).toEqual(['policy_error'])
  })
})

describe('user_writes_own', () => {
  test('lets a user write rows of their own only', async () => {
    const readEverything = 'CREATE POLICY reading ON features FOR SELECT USING (true);'
    await using world = await createWorld({ tables: [guideTable(readEverything + USER_WRITES_OWN)] })
    const { client, view } = await world.watch({ sub: abc })
    const id = crypto.randomUUID()
    const { edits } = await client.write([
      { op: 'insert', columns: { id, org_id: orgOne, owner_id: abc, geom: point(8.5, 47.5) } },
      { op: 'insert', columns: { org_id: orgOne, owner_id: xyz, geom: point(8.5, 47.5) } },
    ])
    expect(edits.map((edit) => (edit.status === 'applied' ? edit.status : edit.code))).toEqual([
      'applied',
      'forbidden',
    ])
    await client.until(() => view.rows.has(id), 'it is there')
  })

  test('both policies together decide as Postgres decides', async () => {
    await using world = await createWorld({ tables: [guideTable(TENANT_ISOLATION + USER_WRITES_OWN)] })
    const { client, view } = await world.watch(
      { sub: abc, org_id: orgOne },
      { allowed: (row) => row.org_id === orgOne },
    )
    const columns = [
      { org_id: orgOne, owner_id: abc },
      { org_id: orgOne, owner_id: xyz },
      { org_id: orgTwo, owner_id: abc },
      { org_id: orgTwo, owner_id: xyz },
    ]
    const { edits } = await client.write(
      columns.map(
        (own) =>
          ({ op: 'insert', columns: { id: crypto.randomUUID(), ...own, geom: point(8.5, 47.5) } }) as const,
      ),
    )
    // Two permissive policies are alternatives (PostgreSQL, CREATE POLICY), so only the last breaks both.
    expect(edits.map((edit) => edit.status)).toEqual(['applied', 'applied', 'applied', 'rejected'])
    await client.until(() => view.rows.size === 2, 'two rows')
  })
})

describe('every SQL block of the guide, one after the other', () => {
  const ownRow = { org_id: orgOne, owner_id: abc, geom: point(8.5, 47.5) }

  async function guideWorld(): Promise<World> {
    const blocks = guideBlocks.filter(({ language }) => language === 'sql').map(({ code }) => code)
    const first = blocks.indexOf(POLICIES)
    expect(first).toBeGreaterThan(0)
    return createWorld({ tables: [guideTable(blocks.slice(first).join(''))] })
  }

  async function putRows(world: World): Promise<{ own: string; colleague: string; foreign: string }> {
    const put = async (org: string, owner: string) => {
      const id = await world.put({ org })
      await world.admin`update features set owner_id = ${owner} where id = ${id}`
      return id
    }
    return { own: await put(orgOne, abc), colleague: await put(orgOne, xyz), foreign: await put(orgTwo, xyz) }
  }

  test('each claim opens what the guide says', async () => {
    await using world = await guideWorld()
    const { own, colleague, foreign } = await putRows(world)
    const everything = [own, colleague, foreign]
    const cases: [Record<string, unknown>, string[]][] = [
      [{ org_id: orgOne }, [own, colleague]],
      [{ org_id: orgTwo }, [foreign]],
      [{}, []],
      [{ org_id: null, admin: false, orgs: [] }, []],
      [{ admin: true }, everything],
      [{ orgs: [orgTwo] }, [foreign]],
      [{ orgs: [orgOne, orgTwo] }, everything],
      [{ 'cognito:groups': ['surveyors'] }, everything],
      [{ 'cognito:groups': ['painters'] }, []],
    ]
    for (const [claims, visible] of cases) {
      const { view } = await world.watch({ sub: abc, ...claims })
      expect({ claims, ended: view.ended, ids: [...view.rows.keys()].sort() }).toEqual({
        claims,
        ended: null,
        ids: visible.sort(),
      })
    }
  })

  test('the restrictive policies let users write their own rows of their organisation only', async () => {
    await using world = await guideWorld()
    const { own, colleague, foreign } = await putRows(world)
    const { client } = await world.watch({ sub: abc, org_id: orgOne })
    const { edits } = await client.write([
      { op: 'insert', columns: ownRow },
      { op: 'insert', columns: { ...ownRow, owner_id: xyz } },
      { op: 'insert', columns: { ...ownRow, org_id: orgTwo } },
      { op: 'update', id: own, columns: { name: 'mine' } },
      { op: 'update', id: own, columns: { owner_id: xyz } },
      { op: 'update', id: colleague, columns: { owner_id: abc } },
      { op: 'delete', id: colleague },
      { op: 'delete', id: foreign },
      { op: 'delete', id: own },
    ])
    expect(edits.map((edit) => (edit.status === 'applied' ? edit.status : edit.code))).toEqual([
      'applied',
      'forbidden',
      'forbidden',
      'applied',
      'forbidden',
      'not_found',
      'not_found',
      'not_found',
      'applied',
    ])
  })
})

test('a token is refreshed on the open socket: no reconnect, no snapshot', async () => {
  await using world = await createWorld({ tables: [guideTable(TENANT_ISOLATION)] })
  await world.put({ org: orgOne })
  const claims = { sub: 'user-abc', org_id: orgOne, role: 'member' }
  const { client, view } = await world.watch(claims)
  // What was written just before may come twice, so it is let pass before counting.
  await world.barrier(client, claims)
  const received = view.rowsReceived
  await client.authenticate(await mintToken({ ...claims, exp: Math.floor(Date.now() / 1000) + 9_000 }))
  await world.barrier(client, claims)
  expect(view.rowsReceived).toBe(received + 1)
  expect(client.frames.filter((frame) => frame.type === 'subscribed')).toHaveLength(1)
})
