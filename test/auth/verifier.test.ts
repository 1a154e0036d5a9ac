/** Nine algorithms × key forms × good and forged tokens (architecture.md, Authentication). */
import { describe, expect, test } from 'bun:test'
import { AuthError } from '../../src/auth/auth-error.ts'
import { createVerifier, type Verifier } from '../../src/auth/verifier.ts'
import { ALGORITHMS, type Algorithm, type AuthConfig } from '../../src/config/config.ts'
import { TOKEN_BYTES_MAX } from '../../src/wire/limits.ts'
import { type KeyForm, type KeyPair, pairFor, publicPem } from './key-material.ts'
import { encode, makeToken, type SigningKey } from './tokens.ts'

const NOW = new Date('2026-03-01T12:00:00Z')
const nowSeconds = NOW.getTime() / 1000
const CLAIMS = { sub: 'user-abc', org_id: 'org-123', exp: nowSeconds + 600 }

interface Setup {
  readonly algorithm: Algorithm
  readonly form: 'secret' | KeyForm
  readonly signingKey: SigningKey
  readonly otherKey: SigningKey
  readonly otherPair: KeyPair
  readonly key: AuthConfig['key']
}

const RSA_PAIRS = [pairFor('RS256'), pairFor('RS256')] as const
const setups = ALGORITHMS.flatMap(setupsOf)

function setupsOf(algorithm: Algorithm): readonly Setup[] {
  if (algorithm.startsWith('HS')) {
    const secret = new TextEncoder().encode(`a secret of some length for ${algorithm}`.padEnd(64, 'x'))
    const otherKey = new TextEncoder().encode('another secret'.padEnd(64, 'y'))
    const key = { kind: 'secret', secret } as const
    return [{ algorithm, form: 'secret', signingKey: secret, otherKey, otherPair: RSA_PAIRS[1], key }]
  }
  const isRsa = algorithm.startsWith('RS')
  const [pair, otherPair] = isRsa ? RSA_PAIRS : [pairFor(algorithm), pairFor(algorithm)]
  const forms: readonly KeyForm[] = isRsa ? ['SPKI', 'PKCS#1', 'X.509'] : ['SPKI', 'X.509']
  return forms.map((form) => ({
    algorithm,
    form,
    signingKey: pair.privateKey,
    otherKey: otherPair.privateKey,
    otherPair,
    key: { kind: 'pem', pem: publicPem(pair, form), path: '/run/secrets/jwt.pub' },
  }))
}

function authFor(setup: Setup, extra: Partial<AuthConfig> = {}): AuthConfig {
  const { algorithm, key } = setup
  return {
    algorithm,
    key,
    issuers: null,
    audiences: null,
    clockToleranceSeconds: 0,
    enforceExpiry: false,
    ...extra,
  }
}

/** The reason for which a token is refused; 'accepted' if it is not. Any other error fails the test. */
async function verdict(verifier: Verifier, token: string): Promise<string> {
  try {
    await verifier.verify(token, NOW)
    return 'accepted'
  } catch (error) {
    if (!(error instanceof AuthError)) throw error
    for (const part of token.split('.')) {
      if (part.length > 8) expect(error.message).not.toContain(part)
    }
    expect(error.message).not.toContain('org-123')
    return error.reason
  }
}

/** The first character of a part is all signal; its last one may be half padding. */
function flipFirst(part: string): string {
  return (part.startsWith('A') ? 'B' : 'A') + part.slice(1)
}

describe.each(setups)('$algorithm with $form', (setup) => {
  const { algorithm, signingKey, otherKey } = setup
  const sign = (payload: object | string | Uint8Array = CLAIMS, header: object | string = {}) =>
    makeToken(algorithm, signingKey, payload, header)
  const [header, payload, signature] = sign().split('.') as [string, string, string]
  const forgedPayload = encode(JSON.stringify({ ...CLAIMS, org_id: 'org-666' }))
  const otherJwk = setup.otherPair.publicKey.export({ format: 'jwk' })

  const family = algorithm.slice(0, 2)
  const siblings = ALGORITHMS.filter((other) => other.startsWith(family) && other !== algorithm)
  const siblingTokens = family === 'ES' ? [] : siblings.map((other) => makeToken(other, signingKey, CLAIMS))

  test('accepts a good token and makes its principal', async () => {
    const verifier = await createVerifier(authFor(setup))
    const principal = await verifier.verify(sign(), NOW)
    expect(principal.subject).toBe('user-abc')
    expect(principal.expiresAt).toBe(CLAIMS.exp)
    expect(principal.settings.get('datum.org_id')).toBe('org-123')
    expect(principal.settings.get('request.jwt.claims')).toBe(JSON.stringify(CLAIMS))
  })

  const cases: readonly (readonly [what: string, token: string, reason: string])[] = [
    ['kid of no key, which chooses nothing', sign(CLAIMS, { kid: '../../etc/passwd' }), 'accepted'],
    ['not before now', sign({ ...CLAIMS, nbf: nowSeconds }), 'accepted'],
    ['issued in the future, which RFC 7519 allows', sign({ ...CLAIMS, iat: nowSeconds + 60 }), 'accepted'],
    ['a fraction of a second in exp', sign({ ...CLAIMS, exp: nowSeconds + 0.5 }), 'accepted'],

    ['alg none, no signature', `${encode('{"alg":"none"}')}.${payload}.`, 'malformed'],
    [
      'alg none, its signature kept',
      `${encode('{"alg":"none"}')}.${payload}.${signature}`,
      'wrong_algorithm',
    ],
    ['alg NONE', `${encode('{"alg":"NONE"}')}.${payload}.${signature}`, 'wrong_algorithm'],
    ['no alg', `${encode('{}')}.${payload}.${signature}`, 'malformed'],
    ['alg in lower case', sign(CLAIMS, { alg: algorithm.toLowerCase() }), 'wrong_algorithm'],
    ['PS instead of RS', sign(CLAIMS, { alg: `PS${algorithm.slice(2)}` }), 'wrong_algorithm'],
    ...siblings.map(
      (other) => [`header says ${other}`, sign(CLAIMS, { alg: other }), 'wrong_algorithm'] as const,
    ),
    ...siblingTokens.map(
      (token, index) => [`signed as ${siblings[index]}`, token, 'wrong_algorithm'] as const,
    ),

    ['another key', makeToken(algorithm, otherKey, CLAIMS), 'bad_signature'],
    ['another key, in jwk', makeToken(algorithm, otherKey, CLAIMS, { jwk: otherJwk }), 'bad_signature'],
    [
      'another key, at jku',
      makeToken(algorithm, otherKey, CLAIMS, { jku: 'http://127.0.0.1:9/keys' }),
      'bad_signature',
    ],
    [
      'another key, at x5u',
      makeToken(algorithm, otherKey, CLAIMS, { x5u: 'http://127.0.0.1:9/cert' }),
      'bad_signature',
    ],
    ['another key, in x5c', makeToken(algorithm, otherKey, CLAIMS, { x5c: ['MII='] }), 'bad_signature'],
    ['another key, by kid', makeToken(algorithm, otherKey, CLAIMS, { kid: 'other' }), 'bad_signature'],
    ['payload changed', `${header}.${forgedPayload}.${signature}`, 'bad_signature'],
    ['signature changed', `${header}.${payload}.${flipFirst(signature)}`, 'bad_signature'],
    ['signature cut', `${header}.${payload}.${signature.slice(0, 8)}`, 'bad_signature'],
    ['signature of zeros', `${header}.${payload}.${encode(Buffer.alloc(64))}`, 'bad_signature'],

    ['crit that nobody knows', sign(CLAIMS, { crit: ['http://x/y'], 'http://x/y': true }), 'unsupported'],
    ['crit b64', sign(CLAIMS, { crit: ['b64'], b64: true }), 'unsupported'],
    ['crit empty', sign(CLAIMS, { crit: [] }), 'malformed'],

    ['expired', sign({ ...CLAIMS, exp: nowSeconds - 1 }), 'expired'],
    ['expires now', sign({ ...CLAIMS, exp: nowSeconds }), 'expired'],
    ['exp before 1970', sign({ ...CLAIMS, exp: -1 }), 'expired'],
    ['no exp', sign({ sub: 'user-abc' }), 'no_expiry'],
    ['exp as string', sign({ ...CLAIMS, exp: String(CLAIMS.exp) }), 'no_expiry'],
    ['exp null', sign({ ...CLAIMS, exp: null }), 'no_expiry'],
    ['exp beyond every date', sign('{"sub":"user-abc","exp":1e20}'), 'no_expiry'],
    ['exp infinite', sign('{"sub":"user-abc","exp":1e999}'), 'no_expiry'],
    ['exp twice', sign(`{"exp":${CLAIMS.exp},"exp":${CLAIMS.exp}}`), 'duplicate_claims'],
    ['nbf ahead', sign({ ...CLAIMS, nbf: nowSeconds + 1 }), 'not_yet_valid'],
    ['nbf as string', sign({ ...CLAIMS, nbf: '0' }), 'not_yet_valid'],

    ['empty', '', 'malformed'],
    ['one part', 'eyJhbGciOiJIUzI1NiJ9', 'malformed'],
    ['two parts', `${header}.${payload}`, 'malformed'],
    ['no signature', `${header}.${payload}.`, 'malformed'],
    ['no payload', `${header}..${signature}`, 'malformed'],
    ['four parts', `${header}.${payload}.${signature}.${signature}`, 'malformed'],
    [
      'five parts, as an encrypted one',
      `${header}.${payload}.${payload}.${payload}.${signature}`,
      'malformed',
    ],
    ['space before', ` ${sign()}`, 'malformed'],
    ['line end after', `${sign()}\n`, 'malformed'],
    ['Bearer before', `Bearer ${sign()}`, 'malformed'],
    ['padding', `${header}.${payload}.${signature}=`, 'malformed'],
    ['JSON serialization', JSON.stringify({ protected: header, payload, signature }), 'malformed'],
    ['header no JSON', sign(CLAIMS, '{"alg":'), 'malformed'],
    ['header no object', sign(CLAIMS, '["HS256"]'), 'malformed'],
    ['payload no JSON', sign('not json'), 'malformed'],
    ['payload no object', sign('["exp"]'), 'malformed'],
    ['payload not UTF-8', sign(Buffer.from('{"exp":1e11,"a":"\xff"}', 'latin1')), 'malformed'],
    ['payload with a byte order mark', sign(`\ufeff${JSON.stringify(CLAIMS)}`), 'malformed'],
    ['too long', sign({ ...CLAIMS, pad: 'x'.repeat(TOKEN_BYTES_MAX) }), 'too_large'],
    ['sub no string', sign({ ...CLAIMS, sub: 7 }), 'bad_subject'],
  ]

  test.each(cases)('%s', async (_what, token, reason) => {
    const verifier = await createVerifier(authFor(setup))
    expect(await verdict(verifier, token)).toBe(reason)
  })

  test('cut anywhere', async () => {
    const verifier = await createVerifier(authFor(setup))
    const token = sign()
    for (let length = 1; length < token.length; length += 7) {
      expect(await verdict(verifier, token.slice(0, length))).toBeOneOf(['malformed', 'bad_signature'])
    }
    expect(await verdict(verifier, token.slice(0, -1))).toBeOneOf(['malformed', 'bad_signature'])
  })

  if (setup.key.kind === 'pem') {
    const { pem } = setup.key
    test.each(['HS256', 'HS384', 'HS512'] as const)('the public key as the secret of %s', async (hmac) => {
      const verifier = await createVerifier(authFor(setup))
      const forged = makeToken(hmac, new TextEncoder().encode(pem), CLAIMS)
      expect(await verdict(verifier, forged)).toBe('wrong_algorithm')
      const relabelled = makeToken(hmac, new TextEncoder().encode(pem), CLAIMS, { alg: algorithm })
      expect(await verdict(verifier, relabelled)).toBe('bad_signature')
    })
  }

  test('issuer and audience, where the configuration names them', async () => {
    const verifier = await createVerifier(
      authFor(setup, { issuers: ['https://a.test', 'https://b.test'], audiences: ['map', 'api'] }),
    )
    const judge = (extra: object) => verdict(verifier, sign({ ...CLAIMS, ...extra }))
    expect(await judge({ iss: 'https://b.test', aud: 'api' })).toBe('accepted')
    expect(await judge({ iss: 'https://b.test', aud: ['other', 'map'] })).toBe('accepted')
    expect(await judge({ iss: 'https://b.test/', aud: 'api' })).toBe('wrong_issuer')
    expect(await judge({ iss: ['https://b.test'], aud: 'api' })).toBe('wrong_issuer')
    expect(await judge({ aud: 'api' })).toBe('wrong_issuer')
    expect(await judge({ iss: 'https://a.test', aud: 'maps' })).toBe('wrong_audience')
    expect(await judge({ iss: 'https://a.test', aud: [] })).toBe('wrong_audience')
    expect(await judge({ iss: 'https://a.test' })).toBe('wrong_audience')
  })

  test('clock tolerance on both ends', async () => {
    const verifier = await createVerifier(authFor(setup, { clockToleranceSeconds: 30 }))
    const judge = (extra: object) => verdict(verifier, sign({ ...CLAIMS, ...extra }))
    expect(await judge({ exp: nowSeconds - 29 })).toBe('accepted')
    expect(await judge({ exp: nowSeconds - 30 })).toBe('expired')
    expect(await judge({ nbf: nowSeconds + 30 })).toBe('accepted')
    expect(await judge({ nbf: nowSeconds + 31 })).toBe('not_yet_valid')
  })
})
