/** Claims to settings (architecture.md): what Postgres is told is what the token says, or the token is refused. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { AuthError } from '../../src/auth/auth-error.ts'
import { principalFromPayload } from '../../src/auth/claims.ts'
import { CLAIM_NESTING_MAX, CLAIMS_MAX } from '../../src/wire/limits.ts'

const settingsOf = (claims: string) => principalFromPayload(`{"exp":4102444800,${claims}}`).settings

function refusal(payload: string): string {
  try {
    principalFromPayload(payload)
    return 'accepted'
  } catch (error) {
    if (!(error instanceof AuthError)) throw error
    return error.reason
  }
}

describe('the value of a setting', () => {
  test.each([
    ['a string', '"org-123"', 'org-123'],
    ['an empty string', '""', ''],
    ['a string with escapes', '"\\u00e9\\n\\"\\\\"', 'é\n"\\'],
    ['a pair of surrogates', '"\\ud83d\\ude00"', '😀'],
    ['a number', '42', '42'],
    ['a number beyond 2^53', '12345678901234567890', '12345678901234567890'],
    ['a number with more digits than a double', '0.12345678901234567890', '0.12345678901234567890'],
    ['trailing zeros', '1.50', '1.50'],
    ['an exponent', '-1.0E+2', '-1.0E+2'],
    ['minus zero', '-0', '-0'],
    ['true', 'true', 'true'],
    ['false', 'false', 'false'],
    ['null', 'null', ''],
    ['the text null', '"null"', 'null'],
    ['an array', '[1, "a" ,null,12345678901234567890]', '[1,"a",null,12345678901234567890]'],
    ['an object', '{ "a" : { "b": 1.50 } }', '{"a":{"b":1.50}}'],
    ['signs of JSON in a string', '["{\\"x\\": 1}, ]"]', '["{\\"x\\": 1}, ]"]'],
    ['an empty object', '{}', '{}'],
    ['an empty array', '[ ]', '[]'],
    ['keys that look like indices, in their order', '{"2":0,"1":0}', '{"2":0,"1":0}'],
  ])('%s', (_what, json, expected) => {
    expect(settingsOf(`"claim":${json}`).get('datum.claim')).toBe(expected)
  })
})

describe('the name of a setting', () => {
  test.each(['org_id', '_x', 'a1', 'a$b', 'a.b', 'Org', 'constructor', '__proto__', 'toString'])(
    '%s has one',
    (name) => {
      expect(settingsOf(`"${name}":"v"`).get(`datum.${name}`)).toBe('v')
    },
  )

  test.each([
    'https://example.com/org',
    'cognito:groups',
    'a-b',
    'a b',
    '1a',
    '',
    '.',
    'a.',
    '.a',
    'a..b',
    'a.1',
    'ünï',
    '$a',
  ])('%s has none, and is in the whole payload', (name) => {
    const settings = settingsOf(`"${name}":"v"`)
    expect([...settings.keys()]).toEqual(['datum.exp', 'request.jwt.claims'])
    expect(JSON.parse(settings.get('request.jwt.claims')!)[name]).toBe('v')
  })

  test('an escaped name is the name it spells', () => {
    expect(settingsOf('"\\u006frg":"v"').get('datum.org')).toBe('v')
  })

  test('no claim reaches a setting outside its prefix', () => {
    const settings = settingsOf('"request.jwt.claims":"x","role":"y","search_path":"z"')
    expect([...settings.keys()].filter((key) => !key.startsWith('datum.'))).toEqual(['request.jwt.claims'])
    expect(settings.get('request.jwt.claims')).toContain('"exp"')
  })
})

describe('the whole payload', () => {
  test('is the text of the token, every digit of it', () => {
    const text = ' { "exp" : 4102444800.0, "n": 12345678901234567890 } '
    expect(principalFromPayload(text).settings.get('request.jwt.claims')).toBe(text)
  })

  test('may be as good as empty', () => {
    const principal = principalFromPayload('{"exp":4102444800}')
    expect(principal.subject).toBeNull()
    expect(principal.expiresAt).toBe(4102444800)
  })
})

describe('refused', () => {
  test.each([
    ['the same name twice', '{"exp":1,"a":1,"a":1}', 'duplicate_claims'],
    ['the same name, once escaped', '{"exp":1,"a":1,"\\u0061":1}', 'duplicate_claims'],
    ['the same name twice within a claim', '{"exp":1,"a":{"b":[{"c":1,"c":2}]}}', 'duplicate_claims'],
    ['names that differ in case', '{"exp":1,"org":1,"ORG":1}', 'duplicate_claims'],
    ['odd names that differ in case', '{"exp":1,"x:a":1,"X:a":1}', 'duplicate_claims'],
    ['Sub beside sub', '{"exp":1,"sub":"a","Sub":"b"}', 'duplicate_claims'],
    ['SUB alone, which policies would read as sub', '{"exp":1,"SUB":"a"}', 'bad_subject'],
    ['sub a number', '{"exp":1,"sub":1}', 'bad_subject'],
    ['sub null', '{"exp":1,"sub":null}', 'bad_subject'],
    ['NUL in a value', '{"exp":1,"a":"x\\u0000y"}', 'unusable_claims'],
    ['NUL in a name', '{"exp":1,"a\\u0000":1}', 'unusable_claims'],
    ['NUL deep inside', '{"exp":1,"a":[{"b":"\\u0000"}]}', 'unusable_claims'],
    ['a lone surrogate', '{"exp":1,"a":"\\ud800"}', 'unusable_claims'],
    ['a lone surrogate in a deep name', '{"exp":1,"a":{"\\udc00":1}}', 'unusable_claims'],
    [
      'deep nesting',
      `{"exp":1,"a":${'['.repeat(CLAIM_NESTING_MAX)}${']'.repeat(CLAIM_NESTING_MAX)}}`,
      'unusable_claims',
    ],
    ['no object', '[]', 'malformed'],
    ['no JSON', '{"exp":1,}', 'malformed'],
    ['two values', '{"exp":1}{"exp":2}', 'malformed'],
    ['no exp', '{"sub":"a"}', 'no_expiry'],
    ['exp within another claim only', '{"a":{"exp":4102444800}}', 'no_expiry'],
    ['exp in another case only', '{"EXP":4102444800}', 'no_expiry'],
  ])('%s', (_what, payload, reason) => {
    expect(refusal(payload)).toBe(reason)
  })

  test('more claims than the bound, and not one fewer', () => {
    const payload = (count: number) =>
      JSON.stringify({
        exp: 1,
        ...Object.fromEntries(Array.from({ length: count - 1 }, (_, i) => [`c${i}`, 0])),
      })
    expect(refusal(payload(CLAIMS_MAX))).toBe('accepted')
    expect(refusal(payload(CLAIMS_MAX + 1))).toBe('unusable_claims')
  })

  test('names alike within two different objects are not a collision', () => {
    expect(refusal('{"exp":1,"a":{"x":1,"X":1},"b":{"x":1}}')).toBe('accepted')
  })
})

test('any payload: each setting holds what JSON.parse finds, and white space changes nothing', () => {
  const claims = fc.dictionary(
    fc.stringMatching(/^[a-rt-z_][a-z0-9_]{0,6}$/),
    fc.jsonValue({ depthSize: 'small' }),
  )
  fc.assert(
    fc.property(claims, fc.constantFrom(0, 1, '\t'), (generated, indent) => {
      const payload = { ...generated, exp: 4102444800 }
      const text = JSON.stringify(payload, null, indent)
      fc.pre(!text.includes('\\u0000') && !/\\ud[89a-f]/.test(text))
      const { settings } = principalFromPayload(text)
      for (const [name, value] of Object.entries(payload)) {
        const expected = value === null ? '' : typeof value === 'string' ? value : JSON.stringify(value)
        expect(settings.get(`datum.${name}`)).toBe(expected)
      }
      expect(settings.size).toBe(Object.keys(payload).length + 1)
    }),
    { numRuns: 300 },
  )
})
