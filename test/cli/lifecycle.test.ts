/**
 * The commands on a database, as processes: the quick start of the authentication guide from `setup` to a socket, and
 * how a server ends.
 */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS, type World } from '../support/fixture.ts'
import { runProgram, startProgram } from './run-program.ts'

// Each starts processes, on machines that do other things as well.
setDefaultTimeout(TEST_TIMEOUT_MS)

const onPostgres = (await backendKind()) === 'postgres'
const SECRET = 'a secret of the tests that is long enough'
/** Starting the embedded Postgres takes seconds, more on a busy machine. */
const EMBEDDED_TIMEOUT_MS = 120_000

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'datum-cli-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

/** A socket's close code, once it is closed. */
function closeCode(socket: WebSocket): Promise<number> {
  return new Promise((resolve) => {
    socket.onclose = ({ code }) => resolve(code)
  })
}

function opened(socket: WebSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve()
    socket.onerror = () => reject(new Error('the socket did not open'))
  })
}

describe.skipIf(!onPostgres)('on a Postgres server', () => {
  async function writeConfig(world: World, auth = true): Promise<void> {
    const { schema, name, idColumn, geometryColumn } = world.config.tables[0]!
    const table = `table: { name: ${schema}.${name}, col_id: ${idColumn}, col_geom: ${geometryColumn} }\n`
    await writeFile(join(folder, 'datum.yaml'), `${table}${auth ? 'auth: { jwt_algorithm: HS256 }\n' : ''}`)
  }
  const installed = async (world: World) =>
    (await world.admin`select to_regclass('datum.change') is not null as yes`)[0]!.yes as boolean

  test('serve names the setup to run; setup installs; check is content; serve serves and stops', async () => {
    await using world = await createWorld({ start: false })
    await writeConfig(world)
    const app = { DATABASE_URL: world.appUrl!, JWT_SECRET: SECRET }
    const password = new URL(world.appUrl!).password

    const refused = await runProgram(folder, ['-port', '0'], app)
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain('datum-server setup')
    expect(refused.stderr).toContain('--role datum_app')
    expect(refused.stderr).not.toContain(password)

    const unhappy = await runProgram(folder, ['check'], app)
    expect(unhappy.code).toBe(1)
    expect(unhappy.stdout).toContain('datum-server setup')

    const printed = await runProgram(folder, ['setup', '-print', '-db', world.adminUrl!])
    expect(printed.code).toBe(0)
    expect(printed.stdout).toContain('create or replace trigger')
    expect(await installed(world)).toBe(false)

    for (const _again of [1, 2]) {
      const setup = await runProgram(folder, ['setup', '-db', world.adminUrl!])
      expect({ code: setup.code, stdout: setup.stdout }).toEqual({ code: 0, stdout: '' })
    }
    expect(await installed(world)).toBe(true)

    const slow = await runProgram(folder, ['check'], app)
    expect(slow.code).toBe(1)
    expect(slow.stdout).toContain('CREATE INDEX')
    const { name, geometryColumn } = world.config.tables[0]!
    await world.admin`create index on ${world.admin(name)} using gist (${world.admin(geometryColumn!)})`
    const checked = await runProgram(folder, ['check'], app)
    expect(checked).toMatchObject({ code: 0, stdout: 'Nothing is wrong.\n' })

    const server = startProgram(folder, ['serve', '--port', '0', '--host=127.0.0.1'], app)
    const { url, line } = await server.ready()
    expect(line).toContain('ready')
    expect((await fetch(`${url}/healthz`)).status).toBe(200)
    const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`, 'datum.v1')
    await opened(socket)
    const closed = closeCode(socket)
    server.kill('SIGTERM')
    expect(await closed).toBe(1012)
    const { code, stdout, stderr } = await server.outcome
    expect(code).toBe(0)
    expect(stdout).toBe(`${line}\n`)
    expect(stderr).not.toContain(SECRET)
    expect(stderr).not.toContain(password)
  })

  test('the printed SQL, run by hand, is the setup', async () => {
    await using world = await createWorld({ start: false })
    await writeConfig(world, false)
    const { stdout } = await runProgram(folder, ['setup', '--print', '-db', world.adminUrl!])
    const connection = await world.admin.reserve()
    await connection.unsafe(stdout)
    connection.release()
    const server = startProgram(folder, ['-db', world.appUrl!, '-port=0'])
    await server.ready()
    server.kill('SIGINT')
    expect((await server.outcome).code).toBe(0)
  })

  test('setup for a role that is not there changes nothing and says how to make it', async () => {
    await using world = await createWorld({ start: false })
    await writeConfig(world)
    const { code, stderr } = await runProgram(folder, [
      'setup',
      '--role',
      'nobody_here',
      '-db',
      world.adminUrl!,
    ])
    expect(code).toBe(1)
    expect(stderr).toContain('CREATE ROLE')
    expect(await installed(world)).toBe(false)
  })

  test('setup --uninstall prints, removes, and says when there is nothing; a server that runs ends with words', async () => {
    await using world = await createWorld({ start: false })
    await writeConfig(world, false)
    const owner = ['-db', world.adminUrl!]
    expect((await runProgram(folder, ['setup', ...owner])).code).toBe(0)
    const server = startProgram(folder, ['-db', world.appUrl!, '-port=0', '-host=127.0.0.1'])
    const { url } = await server.ready()
    const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`, 'datum.v1')
    await opened(socket)
    const closed = closeCode(socket)

    const printed = await runProgram(folder, ['setup', '--uninstall', '--print', ...owner])
    expect(printed.code).toBe(0)
    expect(printed.stdout).toContain('drop schema datum restrict')
    expect(await installed(world)).toBe(true)

    await world.admin`create policy by_claim on features using (org_id = datum.claim('org_id'))`
    const refused = await runProgram(folder, ['setup', '--uninstall', ...owner])
    expect(refused).toMatchObject({ code: 1, stdout: '' })
    expect(refused.stderr).toContain('the policy by_claim on public.features')
    expect(await installed(world)).toBe(true)
    await world.admin`drop policy by_claim on features`

    expect(await runProgram(folder, ['setup', '-uninstall', ...owner])).toMatchObject({ code: 0, stdout: '' })
    expect(await installed(world)).toBe(false)
    expect(await closed).toBe(1012)
    const { code, stderr } = await server.outcome
    expect(code).toBe(1)
    expect(stderr).toContain('Cannot go on serving')
    expect(stderr).not.toMatch(/^\s+at /m)

    const again = await runProgram(folder, ['setup', '--uninstall', ...owner])
    expect(again.code).toBe(1)
    expect(again.stderr).toContain('nothing to uninstall')
  })

  test('a superuser is warned about at the start, and found by check', async () => {
    await using world = await createWorld({ start: false })
    await writeConfig(world)
    const admin = { DATABASE_URL: world.adminUrl!, JWT_SECRET: SECRET }
    const server = startProgram(folder, ['-port', '0'], admin)
    await server.ready()
    server.kill('SIGTERM')
    expect((await server.outcome).stderr).toContain('superuser')
    const { code, stdout } = await runProgram(folder, ['check'], admin)
    expect(code).toBe(1)
    expect(stdout).toContain('superuser')
  })

  test('a port in use, a table and a database that are not there', async () => {
    await using world = await createWorld()
    await writeConfig(world)
    const app = { DATABASE_URL: world.appUrl!, JWT_SECRET: SECRET }
    const expectRefusal = async (args: readonly string[], words: string) => {
      const { code, stderr, stdout } = await runProgram(folder, args, app)
      expect(stderr).toContain(words)
      expect(stderr).not.toMatch(/^\s+at /m)
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    }
    await expectRefusal(['-host', '127.0.0.1', '-port', String(world.server.port)], 'in use')
    const elsewhere = new URL(world.appUrl!)
    elsewhere.pathname = '/no_such_database'
    await expectRefusal(['-db', elsewhere.href, '-port', '0'], 'there is no such database')
    await writeFile(join(folder, 'datum.yaml'), 'table: { name: no_such_table }\n')
    await expectRefusal(['-port', '0'], 'no_such_table')
  })
})

describe('without a database URL', () => {
  test(
    'serve runs on the embedded Postgres, says where its data are, and keeps them',
    async () => {
      const first = startProgram(folder, ['-port', '0', '-host', '127.0.0.1'])
      const { url } = await first.ready()
      expect((await fetch(`${url}/readyz`)).status).toBe(200)
      first.kill('SIGTERM')
      const { code, stderr } = await first.outcome
      expect(code).toBe(0)
      expect(stderr).toContain('embedded Postgres')
      expect(stderr).toContain(join(folder, '.datum'))

      // A signal during the start lets it finish, so that no half-made database is left, and then ends it.
      const second = startProgram(folder, ['-port', '0', '-host', '127.0.0.1'])
      await second.said('embedded Postgres')
      second.kill('SIGINT')
      expect(await second.outcome).toMatchObject({ code: 0, stdout: '' })
    },
    EMBEDDED_TIMEOUT_MS,
  )
})
