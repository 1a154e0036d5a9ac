/** The program from outside: exit codes, and what it says on which stream. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import packageJson from '../../package.json' with { type: 'json' }
import { certificatePem, ecPair, rsaPair } from '../auth/key-material.ts'
import { type Outcome, runProgram } from './run-program.ts'

/** A safety net and not a measure: each test starts processes, and machines are slow. */
setDefaultTimeout(60_000)

/** Nothing listens on port 1, so this database refuses at once. */
const NO_DATABASE = 'postgres://app:hunter2@127.0.0.1:1/d'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'datum-cli-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const run = (args: readonly string[], environment: Record<string, string> = {}) =>
  runProgram(folder, args, environment)

async function withConfig(yaml: string, args: readonly string[], environment: Record<string, string> = {}) {
  const name = `${crypto.randomUUID()}.yaml`
  await writeFile(join(folder, name), yaml)
  return { name, ...(await run([...args, '-config', name], environment)) }
}

describe('help and version', () => {
  test.each([
    [['--help'], ['serve', 'setup', 'check', 'demo', '--config', '--db', '--port', '--host']],
    [
      ['serve', '-help'],
      ['--config', '--db', '--port', '--host'],
    ],
    [
      ['setup', '-h'],
      ['--config', '--db', '--role', 'datum_app', '--print'],
    ],
    [
      ['check', '--help'],
      ['--config', '--db'],
    ],
    [['demo', '--help'], ['--port']],
  ])('%j', async (args, words) => {
    const { code, stdout, stderr } = await run(args)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    for (const word of words) expect(stdout).toContain(word)
    expect(stdout).not.toContain('\u001b')
  })

  test.each([[['--version']], [['demo', '-v']]])('%j', async (args) => {
    expect(await run(args)).toEqual({ code: 0, stdout: `${packageJson.version}\n`, stderr: '' })
  })
})

describe('refused with exit code 2, without a stack', () => {
  async function expectRefusal(outcome: Outcome, ...words: string[]) {
    expect(outcome.stderr).toStartWith('datum-server: ')
    for (const word of words) expect(outcome.stderr).toContain(word)
    expect(outcome.stderr).not.toMatch(/^\s+at /m)
    expect(outcome.stderr).not.toContain('hunter2')
    expect(outcome.code).toBe(2)
    expect(outcome.stdout).toBe('')
  }

  test('an unknown flag', async () => expectRefusal(await run(['-confg', 'x']), '--config'))

  test('a port out of range, by flag and by variable, of serve and of demo', async () => {
    await expectRefusal(await run(['-port', '65536']), '--port: must be')
    await expectRefusal(await run([], { PORT: 'http' }), 'PORT: must be')
    await expectRefusal(await run(['demo', '-port', 'x']), '--port: must be')
  })

  test('a configuration with several problems tells them all', async () => {
    const outcome = await withConfig('prt: 1\nauth:\n  jwt_algorithm: HS256\n  jwt_secret: hunter2\n', [], {
      DATABASE_URL: 'mysql://u:hunter2@h/d',
    })
    const { name } = outcome
    await expectRefusal(
      outcome,
      '4 problems',
      `${name}:1:1: `,
      `${name}:3:3: HS256`,
      `${name}:4:3: the JWT secret`,
      'DATABASE_URL: ',
    )
  })

  test('a key of the wrong type', async () => {
    await writeFile(join(folder, 'rsa.crt'), certificatePem(rsaPair()))
    await writeFile(
      join(folder, 'private.pem'),
      ecPair('prime256v1').privateKey.export({ type: 'sec1', format: 'pem' }),
    )
    const auth = (pem: string) => `auth: {jwt_algorithm: ES256, jwt_public_key: ${pem}}`
    await expectRefusal(
      await withConfig(auth('rsa.crt'), []),
      join(folder, 'rsa.crt'),
      'ES256 needs an EC key',
    )
    await expectRefusal(await withConfig(auth('private.pem'), ['check']), 'holds a private key')
  })

  test('setup without a database', async () => {
    await expectRefusal(await run(['setup']), 'setup needs a database')
    await expectRefusal(await run(['setup', '--print']), 'setup needs a database')
  })
})

describe('a database that is away', () => {
  test.each([['serve'], ['setup'], ['check']])(
    '%s says so with exit code 1, without the password',
    async (command) => {
      const { code, stdout, stderr } = await run([command, '-db', NO_DATABASE])
      expect(stderr).toContain('127.0.0.1:1')
      expect(stderr + stdout).not.toContain('hunter2')
      expect(stderr).not.toMatch(/^\s+at /m)
      expect(code).toBe(1)
      expect(stdout).toBe('')
    },
  )
})

describe('warnings on standard error', () => {
  test('of a short secret, and of a secret without auth', async () => {
    const environment = { JWT_SECRET: 'hunter2', DATABASE_URL: NO_DATABASE }
    const short = await withConfig('auth: {jwt_algorithm: HS256}', ['check'], environment)
    expect(short.stderr).toContain('JWT_SECRET has 7 bytes')
    const unused = await run(['check'], environment)
    expect(unused.stderr).toContain('everybody is let in')
    expect(short.stderr + unused.stderr).not.toContain('hunter2')
  })

  test('setup needs no secret', async () => {
    const { stderr, code } = await withConfig('auth: {jwt_algorithm: HS256}', ['setup', '-db', NO_DATABASE])
    expect(stderr).not.toContain('JWT_SECRET')
    expect(code).toBe(1)
  })
})
