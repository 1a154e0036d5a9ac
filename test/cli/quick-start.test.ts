/**
 * The quick start of docs/AUTHENTICATION.md, step by step as it is written there, by somebody who has the program, a
 * PostGIS and the client: with a shared secret and with a key pair, as a superuser and as an owner who is none.
 * `DATUM_TEST_BINARY` runs it with the compiled program.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import type { KeyObject } from 'node:crypto'
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import type { Sql } from 'postgres'
import { DatumClient } from '../../client/index.ts'
import type { ServerMessage } from '../../src/wire/messages.ts'
import { publicPem, rsaPair } from '../auth/key-material.ts'
import { TEST_TIMEOUT_MS } from '../support/fixture.ts'
import { blocksOf, commandOf, guideBlock, guideBlocks } from '../support/guide.ts'
import { type Cluster, findPostgresBinaries, quietSql, startCluster } from '../support/postgres.ts'
import { type RunningProgram, runProgram, startProgram } from './run-program.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

/** It needs a cluster of its own, since the role that the guide makes belongs to the whole cluster. */
const binaries = process.env.DATUM_TEST_DB === 'embedded' ? null : await findPostgresBinaries()
const WHY_NOT = binaries === null ? ' (skipped: needs a PostgreSQL with PostGIS that it can start)' : ''

const orgOne = 'c0a80101-0000-4000-8000-000000000001'
const orgTwo = 'c0a80102-0000-4000-8000-000000000002'
const userOne = { sub: '7d9f6a52-0000-4000-8000-000000000001', org_id: orgOne, role: 'member' }
const userTwo = { sub: '7d9f6a52-0000-4000-8000-000000000002', org_id: orgTwo, role: 'member' }

const TABLE = guideBlock('sql', 'CREATE TABLE features')
const ROLE = guideBlock('sql', 'CREATE ROLE datum_app')
const POLICIES = guideBlock('sql', 'CREATE POLICY tenant_isolation')
const CONNECT = guideBlock('ts', 'DatumClient.connect')

/** What the guide's client is connected with, read off its text. */
const BBOX = JSON.parse(/bbox: (\[.*?\])/.exec(CONNECT)?.[1] ?? '') as [number, number, number, number]

interface Variant {
  readonly algorithm: 'HS256' | 'RS256'
  /** Who owns the database and runs what the guide says is for owners. */
  readonly owner: 'postgres' | 'map_owner'
}
const variants: readonly Variant[] = [
  { algorithm: 'HS256', owner: 'postgres' },
  { algorithm: 'RS256', owner: 'map_owner' },
]

describe.skipIf(binaries === null).each(variants)(
  `the quick start with $algorithm, owner $owner${WHY_NOT}`,
  ({ algorithm, owner }) => {
    let folder: string
    let cluster: Cluster
    let admin: Sql
    let ownerUrl: string
    let databaseUrl: string
    /** As the guide has it: the environment and the arguments of the server. */
    let serve: { readonly environment: Record<string, string>; readonly args: string[] }
    let key: Uint8Array | KeyObject
    let server: RunningProgram
    let serverUrl: string
    const clients: DatumClient[] = []

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'datum-quick-start-'))
      cluster = await startCluster(binaries!)
      const database = await cluster.createDatabase()
      const superuser = quietSql(cluster.adminUrl(database))
      // The harness has a role of this name for its own use; the guide makes it.
      await superuser.unsafe('drop role datum_app')
      if (owner !== 'postgres') {
        await superuser.unsafe(`create role ${owner} login createrole password 'owner-password'`)
        await superuser.unsafe(`alter database ${database} owner to ${owner}`)
      }
      await superuser.end()
      const { host } = new URL(cluster.adminUrl(database))
      ownerUrl = `postgres://${owner}:owner-password@${host}/${database}`
      admin = quietSql(ownerUrl)
      await admin.unsafe(TABLE)

      // Step 1
      const yaml = guideBlock('yaml', `jwt_algorithm: "${algorithm}"${algorithm === 'HS256' ? '   #' : ''}`)
      const pair = rsaPair()
      const pem = join(folder, 'jwt.pub')
      await writeFile(pem, publicPem(pair, 'SPKI'))
      await writeFile(join(folder, 'datum.yaml'), yaml.replace('/run/secrets/jwt.pub', pem))

      // Step 2
      await admin.unsafe(ROLE)
      const { environment } = commandOf(guideBlock('bash', 'DATABASE_URL=postgres'))
      databaseUrl = environment.DATABASE_URL!.replace('host/db', `${host}/${database}`)

      const lines = [
        'JWT_SECRET=your-secret datum-server',
        'datum-server -config datum.yaml -db $DATABASE_URL',
      ]
      const line = guideBlock('bash', lines[0]!)
      const command = commandOf(algorithm === 'HS256' ? line : lines[1]!, { DATABASE_URL: databaseUrl })
      expect(line).toContain(lines[1]!)
      expect(command.program).toBe('datum-server')
      serve = { ...command, environment: { ...command.environment, PORT: '0' } }
      const { JWT_SECRET } = command.environment
      key = algorithm === 'HS256' ? new TextEncoder().encode(JWT_SECRET) : pair.privateKey
    })
    afterAll(async () => {
      for (const client of clients) await client.disconnect()
      server?.kill('SIGTERM')
      await server?.outcome
      await admin?.end({ timeout: 1 })
      await cluster?.stop()
      await rm(folder, { recursive: true, force: true })
    })

    /** A token that the server accepts; `expiresIn` seconds from now. It was issued an hour ago. */
    const mint = (claims: Record<string, unknown>, expiresIn = 3600) => {
      const now = Math.floor(Date.now() / 1000)
      return new SignJWT({ ...claims, iat: now - 3600, exp: now + expiresIn })
        .setProtectedHeader({ alg: algorithm })
        .sign(key)
    }

    /** A client, and every frame that its sockets got. */
    async function connect(token: () => Promise<string>) {
      const frames: ServerMessage[] = []
      let sockets = 0
      class Watched extends WebSocket {
        constructor(url: string, protocols: string[]) {
          super(url, protocols)
          sockets++
          this.addEventListener('message', ({ data }) => frames.push(JSON.parse(String(data))))
        }
      }
      const db = await DatumClient.connect({ serverUrl, bbox: BBOX, token, WebSocket: Watched })
      clients.push(db)
      return { db, frames, socketsOpened: () => sockets }
    }

    /** Resolves once the names of the client's rows are these. */
    function untilNames(db: DatumClient, ...names: string[]): Promise<void> {
      const now = () => JSON.stringify([...db.rows.values()].map((row) => row.name).sort())
      const wanted = JSON.stringify(names.sort())
      return new Promise((resolve) => {
        const look = () => {
          if (now() === wanted) resolve()
        }
        db.onChange(look)
        look()
      })
    }

    /** As the application writes. FORCE binds owners too, so it says for whom. Returns the id. */
    async function insertAsOwner(org: string, name: string): Promise<string> {
      const [row] = await admin.begin(async (sql) => {
        await sql`select set_config('datum.org_id', ${org}, true)`
        return sql`insert into features (org_id, name, geom)
          values (${org}, ${name}, 'SRID=4326;POINT(-122.45 37.76)') returning id`
      })
      return row!.id
    }

    test('a start without setup stops with the command to run, which works once the owner is filled in', async () => {
      const { code, stderr } = await runProgram(folder, serve.args, serve.environment)
      expect(code).toBe(1)
      expect(stderr).not.toContain('your-password')
      const printed = /^ *(datum-server setup .*)$/m.exec(stderr)?.[1] ?? ''
      const guide = guideBlock('bash', 'datum-server setup').trim()
      const { host, pathname } = new URL(databaseUrl)
      expect(printed).toBe(guide.replace('host/db', `${host}${pathname}`))

      const { args } = commandOf(printed.replace(/postgres:\/\/OWNER:PASSWORD@[^/]+\/\S+/, () => ownerUrl))
      const setup = await runProgram(folder, args)
      expect({ code: setup.code, said: setup.code === 0 ? '' : setup.stderr }).toEqual({ code: 0, said: '' })
    })

    test('the server starts and warns of nothing but what is there to warn of', async () => {
      server = startProgram(folder, serve.args, serve.environment)
      const { url } = await server.ready()
      serverUrl = `${url.replace('http', 'ws')}/ws`
      // There is no policy yet.
      await server.said('no policy')
    })

    test.skipIf(algorithm !== 'HS256')(
      'a token for testing is made as the guide says, and taken',
      async () => {
        await writeFile(join(folder, 'make-token.mjs'), guideBlock('js', '// make-token.mjs'))
        await symlink(join(import.meta.dir, '../../node_modules'), join(folder, 'node_modules'))
        const { JWT_SECRET } = serve.environment
        const made = Bun.spawn([process.execPath, 'make-token.mjs'], { cwd: folder, env: { JWT_SECRET } })
        const token = (await new Response(made.stdout).text()).trim()
        const db = await DatumClient.connect({ serverUrl, bbox: BBOX, token })
        clients.push(db)
        expect(db.connectionStatus).toBe('connected')
      },
    )

    test('a connection as a superuser is warned about', async () => {
      const superuserUrl = cluster.adminUrl(new URL(databaseUrl).pathname.slice(1))
      const args = serve.args.map((argument) => (argument === databaseUrl ? superuserUrl : argument))
      expect(args).not.toEqual(serve.args)
      const program = startProgram(folder, args, serve.environment)
      await program.ready()
      program.kill('SIGTERM')
      expect((await program.outcome).stderr).toMatch(/superuser.* bypass/i)
    })

    test('two tenants never see each other’s rows, deletes included', async () => {
      await admin.unsafe(POLICIES)
      const one = await connect(() => mint(userOne))
      const two = await connect(() => mint(userTwo))
      const geom = { type: 'Point', coordinates: [-122.45, 37.75] }
      const ids: string[] = []
      for (const name of ['stays', 'goes'])
        ids.push(await two.db.insert({ org_id: orgTwo, owner_id: userTwo.sub, name, geom }))
      await untilNames(two.db, 'stays', 'goes')
      await two.db.update(ids[0]!, { name: 'renamed' })
      await two.db.delete(ids[1]!)
      await untilNames(two.db, 'renamed')

      // What the policies refuse is told, and taken back.
      const stolen = one.db.insert({ org_id: orgTwo, owner_id: userTwo.sub, name: 'smuggled', geom })
      expect(one.db.rows.size).toBe(1)
      expect(await stolen.catch(({ code }) => code)).toBe('forbidden')
      expect(await one.db.delete(ids[0]!).catch(({ code }) => code)).toBe('not_found')

      // Once a row of now is there, everything before it would have been there too.
      const own = await one.db.insert({ org_id: orgOne, owner_id: userOne.sub, name: 'own', geom })
      const seen = await insertAsOwner(orgOne, 'seen by one')
      await untilNames(one.db, 'own', 'seen by one')
      const heardByOne = JSON.stringify(one.frames.filter(({ type }) => type === 'view'))
      for (const id of [own, seen]) expect(heardByOne).toContain(id)
      for (const id of ids) expect(heardByOne).not.toContain(id)
      expect(heardByOne).not.toContain(orgTwo)

      await insertAsOwner(orgTwo, 'seen by two')
      await untilNames(two.db, 'renamed', 'seen by two')
      for (const id of [own, seen]) expect(JSON.stringify(two.frames)).not.toContain(id)
    })

    test('a token is refreshed before its end: no reconnect, no snapshot', async () => {
      let calls = 0
      // Issued an hour ago, so no short life: due for a refresh 60 s before its end, which is in two seconds.
      const token = () => mint({ ...userTwo, call: ++calls }, calls === 1 ? 62 : 3600)
      const { db, frames, socketsOpened } = await connect(token)
      const authentications = () => frames.filter(({ type }) => type === 'authenticated').length
      while (authentications() < 2) await Bun.sleep(20)
      const atRefresh = frames.findLastIndex(({ type }) => type === 'authenticated')
      expect(calls).toBe(2)

      // A row of now comes; it is the only one that does.
      const later = await insertAsOwner(orgTwo, 'later')
      await untilNames(db, 'later', 'renamed', 'seen by two')
      const views = frames.slice(atRefresh).flatMap((frame) => (frame.type === 'view' ? [frame] : []))
      expect(new Set(views.flatMap(({ rows = [] }) => rows.map(({ id }) => id)))).toEqual(new Set([later]))
      expect(views.flatMap(({ gone = [] }) => gone)).toEqual([])
      expect(frames.filter(({ type }) => type === 'subscribed')).toHaveLength(1)
      expect(socketsOpened()).toBe(1)
    })

    test('check is content, but for the index where the owner cannot see past the policies', async () => {
      const args = ['check', ...serve.args]
      const { code, stdout } = await runProgram(folder, args, serve.environment)
      if (owner === 'postgres') expect({ code, stdout }).toEqual({ code: 0, stdout: 'Nothing is wrong.\n' })
      else {
        expect(code).toBe(1)
        expect(stdout).toContain('0 errors, 1 warning.')
        expect(stdout).toContain('leakproof')
      }
    })
  },
)

test('the README shows the same steps, with the same words', async () => {
  const readme = await Bun.file(join(import.meta.dir, '../../README.md')).text()
  const section = /^## Quick start$[\s\S]*?(?=^## )/m.exec(readme)?.[0] ?? ''
  const blocks = blocksOf(section).filter(({ language }) => language === 'sql' || language === 'yaml')
  expect(blocks).toHaveLength(4)
  const guide = guideBlocks.map(({ code }) => code).join('\n')
  for (const { code } of blocks) expect(guide).toContain(code)
  expect(section).toContain(guideBlock('bash', 'DATABASE_URL=postgres').trim())
  expect(section).toContain(guideBlock('bash', 'JWT_SECRET=your-secret').trim())
})
