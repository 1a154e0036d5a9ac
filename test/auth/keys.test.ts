/** Keys that an operator may hand over, and the wrong ones, each refused with words that say what to do. */
import { describe, expect, test } from 'bun:test'
import { generateKeyPairSync } from 'node:crypto'
import { importVerificationKey } from '../../src/auth/keys.ts'
import type { Algorithm } from '../../src/config/config.ts'
import { OperatorError } from '../../src/operator-error.ts'
import { certificatePem, ecPair, publicPem, rsaPair } from './key-material.ts'

const PATH = '/run/secrets/jwt.pub'
const rsa = rsaPair()
const p256 = ecPair('prime256v1')
const p384 = ecPair('secp384r1')
const privatePem = (type: 'pkcs1' | 'pkcs8' | 'sec1', pair = rsa) =>
  pair.privateKey.export({ type, format: 'pem' } as { type: 'pkcs8'; format: 'pem' }).toString()

const importPem = (algorithm: Algorithm, pem: string) =>
  importVerificationKey({ algorithm, key: { kind: 'pem', pem, path: PATH } })
const importSecret = (algorithm: Algorithm, secret: string) =>
  importVerificationKey({ algorithm, key: { kind: 'secret', secret: new TextEncoder().encode(secret) } })

async function refusal(importing: Promise<unknown>): Promise<string> {
  const error = await importing.then(
    () => null,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(OperatorError)
  expect((error as OperatorError).exitCode).toBe(2)
  return (error as OperatorError).message
}

describe('a PEM that is refused', () => {
  const ed25519 = generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }).toString()
  const spki = publicPem(rsa, 'SPKI')
  test.each([
    ['PKCS#8 private key', 'RS256', privatePem('pkcs8'), 'private key'],
    ['PKCS#1 private key', 'RS256', privatePem('pkcs1'), 'private key'],
    ['SEC1 private key', 'ES256', privatePem('sec1', p256), 'private key'],
    ['public key with its private key', 'RS256', spki + privatePem('pkcs8'), 'private key'],
    ['EC key for RS256', 'RS256', publicPem(p256, 'SPKI'), 'RS256 needs an RSA key'],
    ['RSA key for ES256', 'ES256', spki, 'ES256 needs an EC key on the curve P-256'],
    ['RSA certificate for ES256', 'ES256', certificatePem(rsa), 'ES256 needs an EC key'],
    ['P-384 for ES256', 'ES256', publicPem(p384, 'SPKI'), 'on the curve P-256'],
    ['P-256 for ES512', 'ES512', publicPem(p256, 'SPKI'), 'on the curve P-521'],
    ['Ed25519 for ES256', 'ES256', ed25519, 'ES256 needs an EC key'],
    ['RSA of 1024 bits', 'RS256', publicPem(rsaPair(1024), 'SPKI'), '1024 bits'],
    ['two keys', 'RS256', spki + publicPem(rsaPair(), 'PKCS#1'), 'holds 2 keys'],
    ['nothing', 'RS256', ' \n', 'is empty'],
    ['a JWK', 'RS256', JSON.stringify(rsa.publicKey.export({ format: 'jwk' })), 'JWK'],
    ['an SSH key', 'RS256', 'ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ user@host', 'SSH key'],
    ['escaped line ends', 'RS256', spki.replaceAll('\n', '\\n').replace('-----END', '----END'), 'line ends'],
    ['a damaged key', 'RS256', spki.replace(/\n[A-Za-z0-9+/]{8}/, '\nAAAAAAAA'), 'cannot be read'],
    [
      'a request for a certificate',
      'RS256',
      spki.replaceAll('PUBLIC KEY', 'CERTIFICATE REQUEST'),
      'no public key',
    ],
    ['anything', 'RS256', 'hunter2', 'no public key'],
  ] as const)('%s', async (_what, algorithm, pem, words) => {
    const message = await refusal(importPem(algorithm, pem))
    expect(message).toContain('auth.jwt_public_key')
    expect(message).toContain(PATH)
    expect(message).toContain(words)
    expect(message).not.toContain('hunter2')
    for (const line of pem.split('\n').filter((line) => /^[A-Za-z0-9+/]{32}/.test(line))) {
      expect(message).not.toContain(line)
    }
  })
})

describe('a PEM that is taken', () => {
  test.each([
    ['with text around it', `# our issuer\nsubject=CN = x\n${publicPem(rsa, 'SPKI')}\n`],
    ['with CRLF', publicPem(rsa, 'SPKI').replaceAll('\n', '\r\n')],
    ['as the first of a chain of certificates', certificatePem(rsa) + certificatePem(p256)],
  ])('%s', async (_what, pem) => {
    const { key, warnings } = await importPem('RS256', pem)
    expect(key.usages).toEqual(['verify'])
    expect(warnings).toEqual([])
  })
})

describe('a secret', () => {
  test.each([
    ['HS256', 32],
    ['HS384', 48],
    ['HS512', 64],
  ] as const)('of %s shorter than its hash is warned about, without telling it', async (algorithm, bytes) => {
    const short = 's'.repeat(bytes - 1)
    const { warnings } = await importSecret(algorithm, short)
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toContain(`${bytes}`)
    expect(warnings[0]).not.toContain(short)
    expect((await importSecret(algorithm, `${short}s`)).warnings).toEqual([])
  })

  test('is counted in bytes', async () => {
    expect((await importSecret('HS256', 'é'.repeat(16))).warnings).toEqual([])
  })

  test('with a line end is warned about', async () => {
    expect((await importSecret('HS256', `${'s'.repeat(40)}\n`)).warnings).toHaveLength(1)
  })

  test('that is empty is refused', async () => {
    expect(await refusal(importSecret('HS256', ''))).toContain('JWT_SECRET is empty')
  })

  test('that is a public key, which everybody knows, is refused', async () => {
    const message = await refusal(importSecret('HS256', publicPem(rsa, 'SPKI')))
    expect(message).toContain('JWT_SECRET holds a PEM')
  })
})
