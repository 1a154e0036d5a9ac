/**
 * The compiled binary (`DATUM_TEST_BINARY`) and the built client, used as the authentication guide says, word for word,
 * against a real PostGIS. Skipped where no binary is named.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DatumClient as Client } from '../../client/index.ts'
import { type RunningProgram, runProgram, startProgram } from '../cli/run-program.ts'
import { TEST_TIMEOUT_MS } from '../support/fixture.ts'
import { type Cluster, findPostgresBinaries, quietSql, startCluster } from '../support/postgres.ts'
import { mintToken } from '../support/token.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const binary = process.env.DATUM_TEST_BINARY
const postgresBinaries = await findPostgresBinaries()
const CLIENT = join(import.meta.dir, '../../dist/client/index.js')
const VERSION = (await Bun.file(join(import.meta.dir, '../../package.json')).json()).version

const SECRET = 'your-secret, which has at least the 32 bytes of HS256'
const orgOne = '11111111-1111-4111-8111-111111111111'
const orgTwo = '22222222-2222-4222-8222-222222222222'
const BBOX = [-122.5, 37.7, -122.4, 37.8] as const

const TABLE = `
CREATE TABLE features (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL, owner_id uuid, name text, geom geometry(Point, 4326));
CREATE INDEX ON features USING gist (geom);
INSERT INTO features (org_id, name, geom) VALUES
  ('${orgOne}', 'one', 'SRID=4326;POINT(-122.45 37.75)'),
  ('${orgTwo}', 'two', 'SRID=4326;POINT(-122.46 37.76)');
`

const GUIDE = `
CREATE ROLE datum_app LOGIN PASSWORD 'your-password';
GRANT SELECT, INSERT, UPDATE, DELETE ON features TO datum_app;
GRANT USAGE ON SCHEMA public TO datum_app;
ALTER TABLE features ENABLE ROW LEVEL SECURITY;
ALTER TABLE features FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON features
  USING (org_id = current_setting('datum.org_id', true)::uuid);
`

const CONFIG = `
auth:
  jwt_algorithm: "HS256"   # or RS256, ES256
  # jwt_secret comes from JWT_SECRET env var — never put it here
`

describe.skipIf(binary === undefined)('the binary', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'datum-binary-'))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  test('says its version', async () => {
    const { code, stdout } = await runProgram(folder, ['--version'])
    expect(stdout.trim()).toBe(VERSION)
    expect(code).toBe(0)
  })

  test('refuses an unknown flag', async () => {
    const { code, stderr } = await runProgram(folder, ['-confg', 'datum.yaml'])
    expect(stderr).toContain('-config')
    expect(code).toBe(2)
  })

  test('demo: answers and shows a page', async () => {
    const demo = startProgram(folder, ['demo', '--port', '0'])
    const { url } = await demo.ready()
    expect((await fetch(new URL('/healthz', url))).status).toBe(200)
    const page = await fetch(url)
    expect(page.headers.get('content-type')).toContain('text/html')
    demo.kill('SIGTERM')
    expect((await demo.outcome).code).toBe(0)
  })

  test('serve without a database: the embedded Postgres, and it says so', async () => {
    const server = startProgram(folder, ['serve', '--port', '0'])
    const { url } = await server.ready()
    expect((await fetch(new URL('/readyz', url))).status).toBe(200)
    server.kill('SIGTERM')
    const { code, stderr } = await server.outcome
    expect(stderr).toContain('embedded')
    expect(code).toBe(0)
  })

  describe.skipIf(postgresBinaries === null)('the guide’s quick start', () => {
    let cluster: Cluster
    let server: RunningProgram
    let serverUrl: string
    let adminUrl: string
    const clients: Client[] = []

    beforeAll(async () => {
      cluster = await startCluster(postgresBinaries!)
      const database = await cluster.createDatabase()
      adminUrl = cluster.adminUrl(database)
      const admin = quietSql(adminUrl)
      // The harness's cluster has the role for its own use; the guide makes it.
      await admin.unsafe('DROP ROLE datum_app')
      await admin.unsafe(TABLE)
      await admin.unsafe(GUIDE)
      await admin.end()
      await writeFile(join(folder, 'datum.yaml'), CONFIG)
      const { host } = new URL(adminUrl)
      const appUrl = `postgres://datum_app:your-password@${host}/${database}`
      expect((await runProgram(folder, ['setup', '-config', 'datum.yaml', '-db', adminUrl])).code).toBe(0)
      server = startProgram(folder, ['-config', 'datum.yaml', '-db', appUrl, '--port', '0'], {
        JWT_SECRET: SECRET,
      })
      serverUrl = `${(await server.ready()).url.replace(/^http/, 'ws')}/ws`
    })
    afterAll(async () => {
      for (const client of clients) await client.disconnect()
      server?.kill('SIGTERM')
      await server?.outcome
      await cluster?.stop()
    })

    async function connect(claims: Record<string, string>): Promise<Client> {
      const { DatumClient } = (await import(CLIENT)) as typeof import('../../client/index.ts')
      const token = () => mintToken(claims, new TextEncoder().encode(SECRET))
      const client = await DatumClient.connect({ serverUrl, bbox: BBOX, token })
      clients.push(client)
      return client
    }

    /** Resolves once the rows' names are these. */
    function untilNames(client: Client, names: readonly string[]): Promise<void> {
      const now = () => JSON.stringify([...client.rows.values()].map((row) => row.name).sort())
      const wanted = JSON.stringify([...names].sort())
      return new Promise((resolve) => {
        const look = () => {
          if (now() === wanted) resolve()
        }
        client.onChange(look)
        look()
      })
    }

    test('two tenants never see each other’s rows, deletes included', async () => {
      const one = await connect({ sub: 'user-abc', org_id: orgOne, role: 'member' })
      const two = await connect({ sub: 'user-xyz', org_id: orgTwo, role: 'member' })
      const seenByOne: string[] = []
      one.onChange(({ upserts, gone }) => seenByOne.push(JSON.stringify({ upserts, gone })))
      await untilNames(one, ['one'])
      await untilNames(two, ['two'])
      const [twoId] = [...two.rows.keys()]
      await two.update(twoId!, { name: 'two, renamed' })
      await untilNames(two, ['two, renamed'])
      await two.delete(twoId!)
      await untilNames(two, [])
      const geom = { type: 'Point', coordinates: [-122.42, 37.71] }
      await one.insert({ id: crypto.randomUUID(), org_id: orgOne, name: 'new', geom })
      await untilNames(one, ['one', 'new'])
      expect(seenByOne.join()).not.toContain(twoId!)
    })

    test('what the policies refuse is rolled back and rejected', async () => {
      const one = await connect({ sub: 'user-abc', org_id: orgOne, role: 'member' })
      const geom = { type: 'Point', coordinates: [-122.41, 37.72] }
      const refused = one.insert({ id: crypto.randomUUID(), org_id: orgTwo, name: 'smuggled', geom })
      expect(refused).rejects.toMatchObject({ code: 'forbidden' })
      await refused.catch(() => {})
      expect([...one.rows.values()].some((row) => row.name === 'smuggled')).toBe(false)
    })

    test('check finds nothing wrong with it', async () => {
      const { host } = new URL(adminUrl)
      const appUrl = `postgres://datum_app:your-password@${host}${new URL(adminUrl).pathname}`
      const { code, stderr, stdout } = await runProgram(
        folder,
        ['check', '-config', 'datum.yaml', '-db', appUrl],
        {
          JWT_SECRET: SECRET,
        },
      )
      expect({ code, said: code === 0 ? '' : stdout + stderr }).toEqual({ code: 0, said: '' })
    })
  })
})
