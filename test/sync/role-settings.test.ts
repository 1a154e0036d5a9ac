/**
 * Settings of the server's role, or of its database, that change what values look like as text, what a transaction is, and
 * what policies do. What clients see is the same with and without. Invariants 2 and 4.
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'
import { APP_ROLE } from '../support/postgres.ts'
import { features } from '../support/table-spec.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)
const onServer = test.skipIf((await backendKind()) === 'embedded')

const SETTINGS = [
  'extra_float_digits = -15',
  "IntervalStyle = 'sql_standard'",
  "bytea_output = 'escape'",
  "DateStyle = 'German'",
  "TimeZone = 'Asia/Kathmandu'",
  'standard_conforming_strings = off',
  "default_transaction_isolation = 'serializable'",
  'default_transaction_read_only = on',
  "search_path = ''",
  'row_security = off',
]
const COLUMNS =
  ", at timestamptz default '2024-02-29 12:34:56.789012+05:45', lasts interval default '-1 day 02:03:04', exact float8 default 0.1234567890123456, bytes bytea default '\\x00ff27'"

onServer(
  'I4: what a role’s settings make of values, transactions and policies changes nothing for clients',
  async () => {
    await using world = await createWorld({ tables: [features({ columns: COLUMNS })] })
    const [database] = await world.admin<{ name: string }[]>`select quote_ident(current_database()) as name`
    const id = await world.put({ org: 'a', at: [8.123456789, 47.987654321] })
    const alice = { sub: 'alice', org_id: 'a' }
    const before = await world.watch(alice)
    for (const setting of SETTINGS)
      await world.admin.unsafe(`alter role ${APP_ROLE} in database ${database!.name} set ${setting}`)
    const server = await world.addServer()
    const { client, view } = await world.watch(alice, { server })
    expect(view.rows.get(id)).toEqual(before.view.rows.get(id)!)
    // Read for everybody who could care, by the box that the log has.
    const changed = await world.put({ org: 'a', at: [8.5, 47.5] })
    await client.until(() => view.rows.has(changed), 'the row')
    await before.client.until(() => before.view.rows.has(changed), 'the row')
    expect(view.rows.get(changed)).toEqual(before.view.rows.get(changed)!)
    const { id: _, ...columns } = view.rows.get(id)!
    const { edits } = await client.write([{ op: 'insert', columns }])
    expect(edits).toMatchObject([{ status: 'applied' }])
    const copy = (edits[0] as { id: string }).id
    await client.until(() => view.rows.has(copy), 'the copy')
    expect(view.rows.get(copy)).toEqual({ ...before.view.rows.get(id)!, id: copy })
    await world.barrier(client, alice)
    expect([...view.rows.keys()].sort()).toEqual([id, changed, copy].sort())
    expect(view.rows.get(id)).toMatchObject({ lasts: '-1 days +02:03:04', bytes: '\\x00ff27' })
  },
)
