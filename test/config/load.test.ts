/** Flags over environment over datum.yaml over defaults, and every problem at once with its place. */
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type ConfigFlags, loadConfig } from '../../src/config/load.ts'
import { OperatorError } from '../../src/operator-error.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'datum-config-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

async function write(name: string, text: string): Promise<void> {
  const path = join(folder, name)
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
}

const load = (environment: Record<string, string> = {}, flags: ConfigFlags = {}) =>
  loadConfig({ flags, environment, folder })

/** The lines of the refusal, without its headline. */
async function problems(
  environment: Record<string, string> = {},
  flags: ConfigFlags = {},
): Promise<string[]> {
  const error = await load(environment, flags).then(
    () => null,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(OperatorError)
  expect((error as OperatorError).exitCode).toBe(2)
  return (error as OperatorError).message.split('\n').slice(1)
}

/** Writes datum.yaml and returns the lines of the refusal. */
async function problemsOf(yaml: string, environment: Record<string, string> = {}): Promise<string[]> {
  await write('datum.yaml', yaml)
  return problems(environment)
}

const PEM = '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n'

describe('a replica to read from', () => {
  test('is named by a variable of its own, beside the primary', async () => {
    const { config } = await load({
      DATABASE_URL: 'postgres://u@h/d',
      DATABASE_READ_URL: 'postgres://u@replica/d',
    })
    expect(config.databaseReadUrl).toBe('postgres://u@replica/d')
  })

  test('alone is refused, and so is what is no URL, without showing it', async () => {
    expect(await problems({ DATABASE_READ_URL: 'postgres://u@replica/d' })).toEqual([
      expect.stringContaining('DATABASE_READ_URL: is of a replica, so DATABASE_URL must name its primary'),
    ])
    const [line] = await problems({
      DATABASE_URL: 'postgres://u@h/d',
      DATABASE_READ_URL: 'mysql://root:hunter2@h/d',
    })
    expect(line).toContain('DATABASE_READ_URL: must be a URL like')
    expect(line).not.toContain('hunter2')
  })
})

describe('defaults', () => {
  test.each([
    ['no file', null],
    ['an empty file', ''],
    ['a file of comments', '# nothing yet\n---\n'],
  ])('%s', async (_what, yaml) => {
    if (yaml !== null) await write('datum.yaml', yaml)
    expect(await load({ PORT: '', CONFIG: '', JWT_SECRET: '', DATABASE_URL: '' })).toEqual({
      config: {
        port: 8080,
        host: '0.0.0.0',
        allowedOrigins: null,
        rateLimit: 0,
        connectionsPerIp: 0,
        unauthenticatedPerIp: 4096,
        unauthenticated: 16384,
        heldRows: 20_000_000,
        trustedProxies: [],
        tables: [{ schema: 'public', name: 'features', idColumn: 'id', geometryColumn: null }],
        auth: null,
        databaseUrl: null,
        databaseReadUrl: null,
        embedded: { dataDir: join(folder, '.datum'), initSql: null },
        configFile: null,
        logLevel: 'info',
      },
      warnings: [],
    })
  })
})

describe('every key', () => {
  test('of the file', async () => {
    await write('keys/jwt.pub', PEM)
    await write('init.sql', 'select 1')
    await write(
      'datum.yaml',
      `port: 9000
host: 127.0.0.1
allowed_origin: [https://App.example.com/, "http://localhost:5173"]
rate_limit: 600
max_connections_per_ip: 100
max_unauthenticated_per_ip: 10
max_unauthenticated: 20
max_held_rows: 30
trusted_proxies: [10.0.0.0/8, "::1"]
log_level: debug
tables:
  - { name: places, col_id: gid, col_geom: shape }
  - name: geo.roads
auth:
  jwt_algorithm: ES384
  jwt_public_key: keys/jwt.pub
  jwt_issuer: https://issuer.test
  jwt_audience: [map, api]
  clock_tolerance: 5
  enforce_expiry: true
embedded: { data_dir: data, init_sql: init.sql }
`,
    )
    const { config, warnings } = await load({ DATABASE_URL: 'postgres://u:p@h/d' })
    expect(config).toEqual({
      port: 9000,
      host: '127.0.0.1',
      allowedOrigins: ['https://app.example.com', 'http://localhost:5173'],
      rateLimit: 600,
      connectionsPerIp: 100,
      unauthenticatedPerIp: 10,
      unauthenticated: 20,
      heldRows: 30,
      trustedProxies: ['10.0.0.0/8', '::1'],
      tables: [
        { schema: 'public', name: 'places', idColumn: 'gid', geometryColumn: 'shape' },
        { schema: 'geo', name: 'roads', idColumn: 'id', geometryColumn: null },
      ],
      auth: {
        algorithm: 'ES384',
        key: { kind: 'pem', pem: PEM, path: join(folder, 'keys/jwt.pub') },
        issuers: ['https://issuer.test'],
        audiences: ['map', 'api'],
        clockToleranceSeconds: 5,
        enforceExpiry: true,
      },
      databaseUrl: 'postgres://u:p@h/d',
      databaseReadUrl: null,
      embedded: { dataDir: join(folder, 'data'), initSql: 'select 1' },
      configFile: null,
      logLevel: 'debug',
    })
    expect(warnings).toEqual([])
  })

  test("of the file, whose paths are relative to the file's own folder", async () => {
    await write('etc/jwt.pub', PEM)
    await write('etc/init.sql', 'select 2')
    await write(
      'etc/my.yaml',
      'auth: {jwt_algorithm: RS256, jwt_public_key: jwt.pub}\nembedded: {init_sql: ./init.sql}\n',
    )
    const { config } = await load({}, { config: 'etc/my.yaml' })
    expect(config.auth?.key).toMatchObject({ path: join(folder, 'etc/jwt.pub') })
    expect(config.embedded).toEqual({ dataDir: join(folder, '.datum'), initSql: 'select 2' })
    expect(config.configFile).toBe('etc/my.yaml')
  })

  test('of the environment', async () => {
    await write('other.yaml', 'auth: {jwt_algorithm: HS512}\nport: 1\n')
    const { config } = await load({
      DATABASE_URL: 'postgresql://u@h/d',
      CONFIG: 'other.yaml',
      JWT_SECRET: 'sécret',
      PORT: '0',
      HOST: '::1',
      TABLE: 'geo.places',
      ALLOWED_ORIGIN: 'https://a.test, capacitor://localhost',
      RATE_LIMIT: '60',
      LOG_LEVEL: 'warn',
    })
    expect(config).toMatchObject({
      port: 0,
      host: '::1',
      databaseUrl: 'postgresql://u@h/d',
      tables: [{ schema: 'geo', name: 'places', idColumn: 'id', geometryColumn: null }],
      allowedOrigins: ['https://a.test', 'capacitor://localhost'],
      rateLimit: 60,
      logLevel: 'warn',
    })
    expect(config.auth?.key).toEqual({ kind: 'secret', secret: new TextEncoder().encode('sécret') })
  })
})

describe('what goes over what', () => {
  test('flag over environment over file', async () => {
    await write('datum.yaml', 'port: 1\nhost: a.test\n')
    await write('flag.yaml', 'port: 2\nhost: b.test\n')
    const environment = { PORT: '3', HOST: 'c.test', DATABASE_URL: 'postgres://e/d', CONFIG: 'missing.yaml' }
    const flags = { config: 'flag.yaml', port: '4', host: 'd.test', db: 'postgres://f/d' }
    expect((await load()).config).toMatchObject({ port: 1, host: 'a.test' })
    expect((await load({ PORT: '3' })).config).toMatchObject({ port: 3, host: 'a.test' })
    expect((await load(environment, flags)).config).toMatchObject({
      port: 4,
      host: 'd.test',
      databaseUrl: 'postgres://f/d',
    })
  })

  test('"*" in the environment lifts the restriction of the file', async () => {
    await write('datum.yaml', 'allowed_origin: https://a.test\n')
    expect((await load()).config.allowedOrigins).toEqual(['https://a.test'])
    expect((await load({ ALLOWED_ORIGIN: '*' })).config.allowedOrigins).toBeNull()
  })

  test('TABLE renames the one table and keeps its columns', async () => {
    await write('datum.yaml', 'table: {name: a, col_id: gid}\n')
    expect((await load({ TABLE: 'b' })).config.tables).toEqual([
      { schema: 'public', name: 'b', idColumn: 'gid', geometryColumn: null },
    ])
  })

  test('TABLE chooses from several', async () => {
    await write('datum.yaml', 'tables: [{name: a, col_id: x}, {name: geo.b, col_id: y}]\n')
    expect((await load({ TABLE: 'geo.b' })).config.tables).toMatchObject([
      { schema: 'geo', name: 'b', idColumn: 'y' },
    ])
    expect((await load({ TABLE: 'c' })).config.tables).toMatchObject([
      { schema: 'public', name: 'c', idColumn: 'id' },
    ])
  })

  test('quoted names of tables', async () => {
    const tables = async (name: string) => (await load({ TABLE: name })).config.tables[0]
    expect(await tables('"My.Schema".Roads')).toMatchObject({ schema: 'My.Schema', name: 'Roads' })
    expect(await tables('"say ""hi"""')).toMatchObject({ schema: 'public', name: 'say "hi"' })
  })
})

describe('problems', () => {
  test('all at once, each with its place, in the order of the file', async () => {
    const lines = await problemsOf(
      `prot: 8080
host: ""
table:
  nme: places
auth:
  jwt_algorithm: hs256
  clock_tolerance: 1 minute
log_level: loud
`,
      { RATE_LIMIT: 'many', DATABASE_URL: 'mysql://root:hunter2@h/d' },
    )
    expect(lines).toHaveLength(9)
    expect(lines[0]).toStartWith('  datum.yaml:1:1: there is no key "prot"')
    expect(lines[0]).toEndWith('Did you mean "port"?')
    expect(lines[1]).toBe('  datum.yaml:2:1: "host" must not be empty.')
    expect(lines[2]).toStartWith('  datum.yaml:3:1: "table.name" is missing')
    expect(lines[3]).toStartWith('  datum.yaml:4:3: there is no key "nme"')
    expect(lines[4]).toStartWith('  datum.yaml:6:3: "auth.jwt_algorithm" must be one of HS256')
    expect(lines[5]).toStartWith('  datum.yaml:7:3: "auth.clock_tolerance" must be a whole number of seconds')
    expect(lines[6]).toStartWith('  datum.yaml:8:1: "log_level" must be one of silent')
    expect(lines[7]).toStartWith('  RATE_LIMIT: must be a whole number')
    expect(lines[8]).toStartWith('  DATABASE_URL: must be a URL like')
    expect(lines.join()).not.toContain('hunter2')
  })

  test.each([
    ['a key of a section at the top', 'jwt_algorithm: HS256', '1:1', 'under "auth"'],
    [
      'a key of the top in a section',
      'auth: {jwt_algorithm: HS256, port: 1}',
      '1:30',
      'at the top of the file',
    ],
    [
      'camel case',
      'auth:\n  jwtAlgorithm: HS256\n  jwt_algorithm: HS256',
      '2:3',
      'Did you mean "jwt_algorithm"?',
    ],
    ['another case', 'Auth: {}', '1:1', 'Did you mean "auth"?'],
    ['a number as a key', '1: 2', '1:1', 'there is no key "1"'],
    ['__proto__', '__proto__: {port: 1}', '1:1', 'there is no key "__proto__"'],
    ['a database URL', 'database_url: postgres://u:hunter2@h/d', '1:1', 'DATABASE_URL or -db'],
    [
      'auth with nothing in it, which must not mean no auth',
      'port: 1\nauth:\n',
      '2:1',
      '"auth" has no value',
    ],
    ['auth empty', 'auth: {}', '1:1', '"auth.jwt_algorithm" is missing'],
    ['auth a text', 'auth: HS256', '1:1', '"auth" must be a map'],
    ['algorithm none', 'auth: {jwt_algorithm: none}', '1:8', 'must be one of HS256'],
    [
      'a PEM in place',
      `auth: {jwt_algorithm: RS256, jwt_public_key: "-----BEGIN hunter2"}`,
      '1:30',
      'path of a PEM file',
    ],
    ['no such PEM', 'auth: {jwt_algorithm: RS256, jwt_public_key: a.pub}', '1:30', 'there is no such file'],
    ['a folder as PEM', 'auth: {jwt_algorithm: RS256, jwt_public_key: .}', '1:30', 'this is a folder'],
    ['no PEM named', 'auth: {jwt_algorithm: ES256}', '1:8', '"auth.jwt_public_key"'],
    [
      'HS with a PEM',
      'auth:\n  jwt_algorithm: HS256\n  jwt_public_key: a.pub',
      '3:3',
      'is for RS and ES algorithms',
    ],
    [
      'an empty list of issuers',
      'auth: {jwt_algorithm: HS256, jwt_issuer: []}',
      '1:30',
      'must be a text or a list',
    ],
    ['both table and tables', 'port: 1\ntable: {name: a}\ntables: [{name: b}]', '2:1', 'are both here'],
    ['no tables', 'tables: []', '1:1', 'at least one'],
    ['a table twice', 'tables:\n  - name: a\n  - name: public.a', '3:5', 'listed twice'],
    ['a table without a name', 'tables:\n  - name: a\n  - col_id: x', '3:5', '"tables[1].name" is missing'],
    ['too many parts in a name', 'table: {name: a.b.c}', '1:9', 'the name of a table'],
    ['a name too long', `table: {name: ${'x'.repeat(64)}}`, '1:9', 'at most 63 bytes'],
    ['a number as a name', 'table: {name: 7}', '1:9', 'must be text'],
    ['a port too high', 'port: 65536', '1:1', 'from 0 (any free port) to 65535'],
    ['a port in quotes', 'port: "80"', '1:1', 'must be a whole number'],
    ['half a port', 'port: 80.5', '1:1', 'must be a whole number'],
    ['a host with a port', 'host: http://a.test', '1:1', 'without scheme'],
    ['a proxy that is no address', 'trusted_proxies: proxy.local', '1:1', 'must be an IP address or a range'],
    ['a negative rate', 'rate_limit: -1', '1:1', 'must be a whole number of edits'],
    ['an origin with a path', 'allowed_origin: https://a.test/app', '1:1', 'must be an origin'],
    ['an origin without a scheme', 'allowed_origin: a.test', '1:1', 'must be an origin'],
    ['no origin', 'allowed_origin: []', '1:1', 'must be an origin'],
    ['no such init_sql', 'embedded: {init_sql: x.sql}', '1:12', 'there is no such file'],
    ['a list', '- port: 1', '1:1', 'must hold keys'],
    ['a text', 'hello', '1:1', 'must hold keys'],
    ['a key twice', 'port: 1\nhost: a\nport: 2', '3:1', 'here twice'],
    ['a bracket left open', 'port: 1\ntables: [{name: a}\nhost: b', '3:1', 'not closed'],
    ['a quote left open', 'port: 1\nhost: "a', '2:9', 'missing'],
    ['a tab', 'auth:\n\tjwt_algorithm: HS256', '2:1', 'not with tabs'],
    ['two documents', 'port: 1\n---\nport: 2', '2:1', 'second document'],
    ['an alias of nothing', 'host: *x', '1:7', 'refers to nothing'],
    ['a map as a key', '? {a: 1}\n: 2', '1:3', 'plain text'],
  ])('%s', async (_what, yaml, place, words) => {
    const lines = await problemsOf(yaml, { JWT_SECRET: 'x'.repeat(64) })
    expect(lines).toContainEqual(expect.stringContaining(`datum.yaml:${place}: `))
    expect(lines.find((line) => line.includes(`:${place}: `))).toContain(words)
    expect(lines.join('\n')).not.toContain('hunter2')
  })

  test('HS without JWT_SECRET', async () => {
    const [line] = await problemsOf('auth: {jwt_algorithm: HS384}')
    expect(line).toContain('datum.yaml:1:8: HS384')
    expect(line).toContain('JWT_SECRET')
  })

  test('a file that is named and missing', async () => {
    expect(await problems({}, { config: 'no.yaml' })).toEqual([
      `  --config: there is no file ${join(folder, 'no.yaml')}.`,
    ])
    expect(await problems({ CONFIG: 'no.yaml' })).toEqual([
      `  CONFIG: there is no file ${join(folder, 'no.yaml')}.`,
    ])
    await mkdir(join(folder, 'datum.yaml'))
    expect((await problems())[0]).toContain('this is a folder')
  })

  test.each([
    ['PORT', '65536'],
    ['PORT', '-1'],
    ['PORT', '80a'],
    ['PORT', '1e3'],
    ['HOST', 'a b'],
    ['TABLE', 'a.b.c'],
    ['ALLOWED_ORIGIN', 'a.test'],
    ['ALLOWED_ORIGIN', 'https://a.test,,'],
    ['RATE_LIMIT', '1.5'],
    ['LOG_LEVEL', 'verbose'],
    ['DATABASE_URL', 'hunter2'],
  ])('%s=%s', async (name, value) => {
    const lines = await problems({ [name]: value })
    expect(lines).toHaveLength(1)
    expect(lines[0]).toStartWith(`  ${name}: must be `)
    if (name === 'DATABASE_URL') expect(lines[0]).not.toContain(value)
  })

  test('a bad flag is called by its name', async () => {
    expect((await problems({ PORT: '1' }, { port: 'x' }))[0]).toStartWith('  --port: must be')
    expect((await problems({}, { db: 'x' }))[0]).toStartWith('  --db: must be')
  })
})

describe('a secret in the file stops the start, and is not told', () => {
  test.each([
    ['at the top', 'jwt_secret: hunter2', '1:1'],
    ['under auth', 'auth:\n  jwt_algorithm: HS256\n  jwt_secret: hunter2', '3:3'],
    ['deep', 'a:\n  - b:\n      c: {jwt_secret: hunter2}', '3:11'],
    ['in capitals', 'JWT_SECRET: hunter2', '1:1'],
    ['in camel case', 'auth: {jwtSecret: hunter2}', '1:8'],
    ['behind an anchor', 'a: &x {jwt_secret: hunter2}\nb: *x', '1:8'],
    ['beside a syntax error', 'jwt_secret: hunter2\nport: [', '1:1'],
    ['empty', 'jwt_secret:', '1:1'],
  ])('%s', async (_what, yaml, place) => {
    const lines = await problemsOf(yaml, { JWT_SECRET: 'hunter3' })
    const line = lines.find((text) => text.includes(`datum.yaml:${place}: the JWT secret`))
    expect(line).toContain('committed to git')
    expect(line).toContain('JWT_SECRET')
    expect(lines.join('\n')).not.toMatch(/hunter/)
  })
})

describe('warnings', () => {
  test('a secret without auth lets everybody in', async () => {
    const { config, warnings } = await load({ JWT_SECRET: 'hunter2' })
    expect(config.auth).toBeNull()
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toContain('everybody is let in')
    expect(warnings[0]).not.toContain('hunter2')
  })

  test('a secret beside a public key is not used', async () => {
    await write('jwt.pub', PEM)
    await write('datum.yaml', 'auth: {jwt_algorithm: RS256, jwt_public_key: jwt.pub}')
    expect((await load({ JWT_SECRET: 'x' })).warnings[0]).toContain('not used')
  })

  test('datum.yml is not read', async () => {
    await write('datum.yml', 'auth: {jwt_algorithm: HS256}')
    expect((await load()).warnings[0]).toContain('datum.yaml')
  })
})
