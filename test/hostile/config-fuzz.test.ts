/**
 * Files and variables that an operator, or who can write to the machine, might put before the server: whatever they
 * hold, it starts with them or says what is wrong, without a stack and without a value. Invariant 12.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc, { type Arbitrary } from 'fast-check'
import { importVerificationKey } from '../../src/auth/keys.ts'
import { ALGORITHMS } from '../../src/config/config.ts'
import { loadConfig } from '../../src/config/load.ts'
import { OperatorError } from '../../src/operator-error.ts'
import { certificatePem, ecPair, publicPem, rsaPair } from '../auth/key-material.ts'
import { fuzzRun } from './fuzz-run.ts'
import { hostileJson, hostileString } from './hostile-json.ts'

setDefaultTimeout(60_000)

/** Stands where a secret might by mistake. */
const SECRET = 'sekret-5d1c-of-the-operator'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'datum-hostile-'))
})
afterAll(() => rm(folder, { recursive: true }))

/** Resolves to the message of the refusal, or null where it was taken. Anything but an OperatorError is a bug. */
async function refusalOf(work: Promise<unknown>): Promise<string | null> {
  try {
    await work
    return null
  } catch (error) {
    expect(error).toBeInstanceOf(OperatorError)
    expect((error as OperatorError).exitCode).toBe(2)
    return (error as OperatorError).message
  }
}

function expectComposure(message: string | null): void {
  if (message === null) return
  expect(message).not.toContain(SECRET)
  expect(message).not.toMatch(/\.ts:\d|node_modules|\[object|undefined|TypeError|ZodError/)
  expect(message.length).toBeLessThan(20_000)
}

const KEYS = [
  'port',
  'host',
  'allowed_origin',
  'rate_limit',
  'max_connections_per_ip',
  'max_unauthenticated',
  'max_held_rows',
  'trusted_proxies',
  'table',
  'tables',
  'auth',
  'embedded',
  'log_level',
]
const INNER = [
  'name',
  'col_id',
  'col_geom',
  'jwt_algorithm',
  'jwt_issuer',
  'clock_tolerance',
  'enforce_expiry',
  'jwt_secret',
  'secret',
]

const shortString = hostileString.filter((text) => text.length < 200)
const shortJson = hostileJson.filter((text) => text.length < 2_000)

/** A value of YAML: JSON is some of it, and there is more. */
const yamlValue: Arbitrary<string> = fc.oneof(
  shortJson,
  shortString.map((text) => JSON.stringify(text)),
  fc.constantFrom(
    SECRET,
    `[${SECRET}, ${SECRET}]`,
    `"${SECRET}`,
    `{${SECRET}: ${SECRET}`,
    `!!binary ${SECRET}`,
    `!!js/function "function () { ${SECRET} }"`,
    `&a [*a, ${SECRET}]`,
    '*nothing',
    '!!set {a, b}',
    '0x1F',
    '0o17',
    '.inf',
    '.nan',
    '~',
    '2024-01-01',
    '<<: {port: 1}',
    '| \n  block\n   text',
    'HS256',
    'RS256',
    '8080',
    '-1',
    '1e3',
    'true',
  ),
)

const yamlText: Arbitrary<string> = fc
  .array(
    fc.oneof(
      fc.tuple(fc.constantFrom(...KEYS), yamlValue).map(([key, value]) => `${key}: ${value}`),
      fc
        .tuple(
          fc.constantFrom(...KEYS),
          fc.array(fc.tuple(fc.constantFrom(...INNER), yamlValue), { maxLength: 4 }),
        )
        .map(([key, inner]) => `${key}:\n${inner.map(([name, value]) => `  ${name}: ${value}`).join('\n')}`),
      fc
        .tuple(
          shortString.map((text) => JSON.stringify(text)),
          yamlValue,
        )
        .map(([key, value]) => `${key}: ${value}`),
      fc.constantFrom(
        '---',
        '...',
        '\t',
        '%YAML 1.1',
        '? [a]\n: b',
        '__proto__: {port: 1}',
        'constructor: 1',
        '\ufeff',
        '# c',
      ),
    ),
    { maxLength: 6 },
  )
  .map((lines) => lines.join('\n'))

const fileBytes: Arbitrary<string | Uint8Array> = fc.oneof(
  { weight: 60, arbitrary: yamlText },
  { weight: 6, arbitrary: fc.uint8Array({ maxLength: 300 }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(manyAliases(), '['.repeat(20_000), 'a: '.repeat(2_000), '\0'.repeat(100)),
  },
)

/** Aliases of aliases: nine lines that stand for a thousand million entries. */
function manyAliases(): string {
  const lines = Array.from(
    { length: 9 },
    (_, n) => `a${n}: &a${n} [${n === 0 ? 'x' : `*a${n - 1},`.repeat(10)}]`,
  )
  return lines.join('\n')
}

test('any datum.yaml is taken, or refused in words that repeat no value', async () => {
  const path = join(folder, 'datum.yaml')
  const environment = { JWT_SECRET: SECRET }
  let taken = 0
  await fc.assert(
    fc.asyncProperty(fileBytes, async (bytes) => {
      await writeFile(path, bytes)
      const message = await refusalOf(loadConfig({ flags: {}, environment, folder }))
      if (message === null) taken++
      expectComposure(message)
      expect(({} as { port?: unknown }).port).toBeUndefined()
    }),
    { ...fuzzRun('datum.yaml', 600), endOnFailure: false },
  )
  expect(taken).toBeGreaterThan(0)
  await rm(path)
})

test('any variable and flag is taken, or refused in words that repeat no value', async () => {
  const value = fc.oneof(
    shortString,
    fc.constantFrom(
      SECRET,
      '80',
      '0',
      '65536',
      '1e3',
      ' 80 ',
      '٣',
      '*',
      'https://a.example, *',
      'postgres://u:p@h/d',
    ),
  )
  const environment = fc.record(
    {
      PORT: value,
      HOST: value,
      TABLE: value,
      ALLOWED_ORIGIN: value,
      RATE_LIMIT: value,
      LOG_LEVEL: value,
      JWT_SECRET: value,
      DATABASE_URL: value,
    },
    { requiredKeys: [] },
  )
  const flags = fc.record({ port: value, host: value, db: value }, { requiredKeys: [] })
  await fc.assert(
    fc.asyncProperty(environment, flags, async (environment, flags) => {
      expectComposure(await refusalOf(loadConfig({ flags, environment, folder })))
    }),
    { ...fuzzRun('variables and flags', 1_000), endOnFailure: false },
  )
})

const rsa = rsaPair()
const p256 = ecPair('prime256v1')
const pems = [
  publicPem(rsa, 'SPKI'),
  publicPem(rsa, 'PKCS#1'),
  certificatePem(rsa),
  publicPem(p256, 'SPKI'),
  certificatePem(p256),
  rsa.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  p256.privateKey.export({ type: 'sec1', format: 'pem' }).toString(),
]

/** A good PEM with something done to it, or no PEM at all. */
const hostilePem: Arbitrary<string> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(
        fc.constantFrom(...pems),
        fc.array(
          fc.oneof(
            fc.tuple(
              fc.constant('change' as const),
              fc.nat(3_000),
              fc.constantFrom('A', '=', '\n', '\0', '-', 'é', ' '),
            ),
            fc.tuple(fc.constant('cut' as const), fc.nat(3_000), fc.constant('')),
            fc.tuple(fc.constant('insert' as const), fc.nat(3_000), shortString),
          ),
          { maxLength: 3 },
        ),
        fc.constantFrom('', ...pems),
      )
      .map(([pem, changes, more]) => {
        let text = pem
        for (const [what, place, piece] of changes) {
          const at = place % (text.length + 1)
          if (what === 'cut') text = text.slice(0, at)
          else text = text.slice(0, at) + piece + text.slice(what === 'change' ? at + 1 : at)
        }
        return text + more
      }),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(
        fc.constantFrom('PUBLIC KEY', 'RSA PUBLIC KEY', 'CERTIFICATE', 'X', '-', ''),
        fc.oneof(
          fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes).toString('base64')),
          shortString,
          fc.constantFrom('', 'MAA=', 'A'.repeat(200_000)),
        ),
      )
      .map(([label, body]) => `-----BEGIN ${label}-----\n${body}\n-----END ${label}-----\n`),
  },
  { weight: 1, arbitrary: hostileString },
  { weight: 1, arbitrary: hostileJson },
)

test('any key file is taken, or refused in words that repeat none of it', async () => {
  const path = join(folder, 'jwt.pub')
  let taken = 0
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...ALGORITHMS.filter((name) => !name.startsWith('HS'))),
      hostilePem,
      async (algorithm, pem) => {
        const message = await refusalOf(importVerificationKey({ algorithm, key: { kind: 'pem', pem, path } }))
        if (message === null) taken++
        expectComposure(message)
        // No line of the file is in what is said of it.
        for (const line of pem.split('\n')) if (line.length > 40) expect(message ?? '').not.toContain(line)
      },
    ),
    { ...fuzzRun('key files', 1_500), endOnFailure: false },
  )
  expect(taken).toBeGreaterThan(0)
})

test('any secret is taken, or refused in words that do not repeat it', async () => {
  const secret = fc.oneof(
    hostileString,
    fc.constantFrom(...pems),
    fc.constant(SECRET),
    fc.uint8Array({ maxLength: 80 }),
  )
  await fc.assert(
    fc.asyncProperty(fc.constantFrom('HS256', 'HS384', 'HS512'), secret, async (algorithm, value) => {
      const bytes = typeof value === 'string' ? new TextEncoder().encode(value) : new Uint8Array(value)
      const message = await refusalOf(
        importVerificationKey({ algorithm, key: { kind: 'secret', secret: bytes } }),
      )
      expectComposure(message)
      if (typeof value === 'string' && value.length > 8) expect(message ?? '').not.toContain(value)
    }),
    { ...fuzzRun('secrets', 500), endOnFailure: false },
  )
})

test('I10: a file that does not end is not read to its end', async () => {
  const environment = { JWT_SECRET: SECRET }
  expect(await refusalOf(loadConfig({ flags: { config: '/dev/zero' }, environment, folder }))).toContain(
    'larger than',
  )
  await writeFile(join(folder, 'datum.yaml'), 'auth: {jwt_algorithm: RS256, jwt_public_key: /dev/zero}\n')
  expect(await refusalOf(loadConfig({ flags: {}, environment, folder }))).toContain('larger than')
  await rm(join(folder, 'datum.yaml'))
})
