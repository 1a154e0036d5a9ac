/**
 * Keys for the tests: pairs of every type, the forms an operator may hand them over in, and self-signed certificates
 * (made here, since Bun and Node have no call that makes one). Used by the tests of `src/auth` and of the commands.
 */
import { createSign, generateKeyPairSync, type KeyObject } from 'node:crypto'
import type { Algorithm } from '../../src/config/config.ts'

export interface KeyPair {
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

export type KeyForm = 'SPKI' | 'PKCS#1' | 'X.509'

const CURVE_OF = { ES256: 'prime256v1', ES384: 'secp384r1', ES512: 'secp521r1' } as const

export const rsaPair = (bits = 2048): KeyPair => generateKeyPairSync('rsa', { modulusLength: bits })

export const ecPair = (curve: string): KeyPair => generateKeyPairSync('ec', { namedCurve: curve })

export function pairFor(algorithm: Algorithm): KeyPair {
  return algorithm in CURVE_OF ? ecPair(CURVE_OF[algorithm as keyof typeof CURVE_OF]) : rsaPair()
}

/** The public half as an operator would have it in a file. */
export function publicPem(pair: KeyPair, form: KeyForm): string {
  if (form === 'X.509') return certificatePem(pair)
  return pair.publicKey.export({ type: form === 'SPKI' ? 'spki' : 'pkcs1', format: 'pem' }).toString()
}

/** A self-signed X.509 certificate (RFC 5280 §4.1) in PEM. */
export function certificatePem(pair: KeyPair): string {
  const signatureAlgorithm = sequence(
    pair.publicKey.asymmetricKeyType === 'rsa'
      ? [der(0x06, hex('2a864886f70d01010b')), der(0x05, Buffer.alloc(0))] // sha256WithRSAEncryption
      : [der(0x06, hex('2a8648ce3d040302'))], // ecdsa-with-SHA256
  )
  const name = sequence([
    der(0x31, sequence([der(0x06, hex('550403')), der(0x0c, Buffer.from('datum test'))])),
  ])
  const validity = sequence([
    der(0x17, Buffer.from('200101000000Z')),
    der(0x17, Buffer.from('491231235959Z')),
  ])
  const toBeSigned = sequence([
    der(0x02, Buffer.from([1])),
    signatureAlgorithm,
    name,
    validity,
    name,
    pair.publicKey.export({ type: 'spki', format: 'der' }),
  ])
  const signature = createSign('sha256').update(toBeSigned).sign(pair.privateKey)
  const certificate = sequence([
    toBeSigned,
    signatureAlgorithm,
    der(0x03, Buffer.concat([Buffer.from([0]), signature])),
  ])
  const lines = certificate.toString('base64').match(/.{1,64}/g)!
  return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n')
}

const hex = (digits: string) => Buffer.from(digits, 'hex')

const sequence = (parts: readonly Buffer[]) => der(0x30, Buffer.concat(parts))

/** One element of DER (X.690 §8.1): tag, length, content. */
function der(tag: number, content: Buffer): Buffer {
  if (content.length < 0x80) return Buffer.concat([Buffer.from([tag, content.length]), content])
  const length = hex(content.length.toString(16).padStart(content.length > 0xff ? 4 : 2, '0'))
  return Buffer.concat([Buffer.from([tag, 0x80 | length.length]), length, content])
}
