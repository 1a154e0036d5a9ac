import { expect, test } from 'bun:test'
import { readToken } from '../../client/jwt.ts'
import { jwt, START_MS } from './fake-world.ts'

test('reads exp, iat and sub', () => {
  const facts = readToken(jwt({ sub: 'user-abc' }, 3600))
  expect(facts.expiresAtMs).toBe(START_MS + 3_600_000)
  expect(facts.issuedAtMs).toBe(START_MS)
  expect(facts.subject).toBe('user-abc')
})

test('reads payloads whose text is not ASCII and whose base64url has - and _', () => {
  const facts = readToken(jwt({ sub: 'Zoë 東京 ~~~???>>>ÿÿÿ', exp: 1 }))
  expect(facts.subject).toBe('Zoë 東京 ~~~???>>>ÿÿÿ')
  expect(facts.expiresAtMs).toBe(1000)
})

test.each([
  '',
  'opaque',
  'a.b.c',
  'a..c',
  `a.${Buffer.from('null').toString('base64url')}.c`,
  `a.${Buffer.from('not json').toString('base64url')}.c`,
  'a.b.c.d.e',
])('a token that is no JWT (%p) has no known end', (token) => {
  expect(readToken(token)).toEqual({ expiresAtMs: null, issuedAtMs: null, subject: null, claims: '' })
})

test.each(['1893456000', null, true, {}, 1e306])('an exp of %p is no end', (exp) => {
  expect(readToken(jwt({ exp })).expiresAtMs).toBeNull()
})

test('claims stay the same from token to token of one login, and differ in every digit otherwise', () => {
  const login = { sub: 'a', org_id: 'x' }
  const first = readToken(jwt({ ...login, jti: '1' }, 60))
  const next = readToken(jwt({ ...login, jti: '2' }, 600, 50))
  expect(next.claims).toBe(first.claims)
  expect(readToken(jwt({ ...login, org_id: 'y' }, 60)).claims).not.toBe(first.claims)
  const big = (digits: string) => `x.${Buffer.from(`{"sub":"a","org":${digits}}`).toString('base64url')}.x`
  expect(readToken(big('12345678901234567890')).claims).not.toBe(
    readToken(big('12345678901234567891')).claims,
  )
})
