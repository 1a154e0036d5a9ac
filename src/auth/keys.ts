/**
 * Turns the configured secret or PEM into the one key that tokens are verified with, and refuses every other thing
 * that people put there by mistake. `config/load.ts` reads the file; `verifier.ts` uses the key.
 */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { importSPKI } from 'jose'
import type { Algorithm, AuthConfig } from '../config/config.ts'
import { OperatorError } from '../operator-error.ts'

interface ImportedKey {
  /** Usable for `verify` with the configured algorithm only. */
  readonly key: CryptoKey
  /** Sentences for the log about a key that works but is weak. */
  readonly warnings: readonly string[]
}

/** Smallest RSA modulus, in bits: RFC 7518 §3.3 requires it for RS256, RS384 and RS512. */
const RSA_BITS_MIN = 2048

/** RFC 7518 §3.4 ties each ES algorithm to one curve. Names as OpenSSL has them, with the name people know. */
const CURVE: Partial<Record<Algorithm, { readonly openssl: string; readonly common: string }>> = {
  ES256: { openssl: 'prime256v1', common: 'P-256' },
  ES384: { openssl: 'secp384r1', common: 'P-384' },
  ES512: { openssl: 'secp521r1', common: 'P-521' },
}

/** SubjectPublicKeyInfo (RFC 7468 §13), PKCS#1 (RFC 8017 A.1.1), X.509 (RFC 7468 §5). */
const PEM_LABELS = ['PUBLIC KEY', 'RSA PUBLIC KEY', 'CERTIFICATE']

/**
 * Imports the key of `auth`.
 * @throws OperatorError (exit 2) whose message names the file or variable, never its content.
 */
export async function importVerificationKey(
  auth: Pick<AuthConfig, 'algorithm' | 'key'>,
): Promise<ImportedKey> {
  if (auth.key.kind === 'secret') return importSecret(auth.algorithm, auth.key.secret)
  const publicKey = readPublicKey(auth.algorithm, auth.key.pem, auth.key.path)
  requireKeyFor(auth.algorithm, publicKey, auth.key.path)
  const spki = publicKey.export({ type: 'spki', format: 'pem' }).toString()
  return { key: await importSPKI(spki, auth.algorithm), warnings: [] }
}

async function importSecret(algorithm: Algorithm, secret: Uint8Array): Promise<ImportedKey> {
  const text = new TextDecoder().decode(secret)
  // A public key in the place of the secret is known to everybody, so everybody could sign.
  if (text.includes('-----BEGIN')) {
    throw new OperatorError(
      `JWT_SECRET holds a PEM, but ${algorithm} signs with a shared secret. Set auth.jwt_algorithm to the RS or ES ` +
        'algorithm of that key and name its public half in auth.jwt_public_key.',
      2,
    )
  }
  if (secret.byteLength === 0) {
    throw new OperatorError(`JWT_SECRET is empty. ${algorithm} needs the secret that signs the tokens.`, 2)
  }
  const hashBytes = Number(algorithm.slice(2)) / 8
  const warnings: string[] = []
  if (secret.byteLength < hashBytes) {
    warnings.push(
      `JWT_SECRET has ${secret.byteLength} bytes; ${algorithm} asks for at least ${hashBytes} (RFC 7518 §3.2). ` +
        'A short secret can be guessed from one token: use a longer, random one.',
    )
  }
  if (text !== text.trim()) {
    warnings.push('JWT_SECRET begins or ends with white space, which is part of the secret. Is that meant?')
  }
  const hash = `SHA-${algorithm.slice(2)}`
  const key = await crypto.subtle.importKey(
    'raw',
    secret as Uint8Array<ArrayBuffer>,
    { name: 'HMAC', hash },
    false,
    ['verify'],
  )
  return { key, warnings }
}

function readPublicKey(algorithm: Algorithm, pem: string, path: string): KeyObject {
  const wrong = (problem: string) => new OperatorError(`auth.jwt_public_key: ${path} ${problem}`, 2)
  if (/-----BEGIN [^-\n]*PRIVATE KEY-----/.test(pem)) {
    throw wrong(
      'holds a private key. Whoever reads it can make tokens, so it does not belong on this server. Give its public ' +
        `half: openssl pkey -in private.pem -pubout -out jwt.pub`,
    )
  }
  const blocks = [...pem.matchAll(/-----BEGIN ([^-\r\n]+)-----[\s\S]*?-----END \1-----/g)]
  const keys = blocks.filter(([, label]) => PEM_LABELS.includes(label!))
  const first = keys[0]
  if (first === undefined) throw wrong(`${describeGarbage(pem)} ${EXPECTED}`)
  // A chain of certificates begins with the key's own one (RFC 8446 §4.4.2); of two bare keys neither comes first.
  if (keys.length > 1 && keys.some(([, label]) => label !== 'CERTIFICATE')) {
    throw wrong(`holds ${keys.length} keys. Leave the one that signs the tokens.`)
  }
  try {
    return createPublicKey(first[0])
  } catch {
    throw wrong(`holds a ${first[1]!.toLowerCase()} that cannot be read as ${keyFor(algorithm)}. ${EXPECTED}`)
  }
}

const EXPECTED =
  'A PEM file is needed that begins with BEGIN PUBLIC KEY, BEGIN RSA PUBLIC KEY or BEGIN CERTIFICATE.'

function describeGarbage(text: string): string {
  if (text.trim() === '') return 'is empty.'
  if (text.trimStart().startsWith('{')) return 'holds JSON (a JWK?), not a PEM.'
  if (/^(ssh-|ecdsa-)/.test(text)) return 'holds an SSH key; ssh-keygen -e -m PKCS8 -f FILE prints it as PEM.'
  if (text.includes('\\n')) return 'holds the characters "\\n" where it should have line ends.'
  return 'holds no public key in PEM form.'
}

function requireKeyFor(algorithm: Algorithm, key: KeyObject, path: string): void {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  const wrong = (problem: string) =>
    new OperatorError(`auth.jwt_public_key: ${path} ${problem}; ${algorithm} needs ${keyFor(algorithm)}.`, 2)
  const curve = CURVE[algorithm]
  if (curve === undefined) {
    if (type !== 'rsa') throw wrong(`holds a key of type ${type}`)
    const bits = details?.modulusLength ?? 0
    if (bits < RSA_BITS_MIN) throw wrong(`holds an RSA key of ${bits} bits`)
    return
  }
  if (type !== 'ec') throw wrong(`holds a key of type ${type}`)
  if (details?.namedCurve !== curve.openssl) {
    throw wrong(`holds an EC key on the curve ${details?.namedCurve ?? '(none named)'}`)
  }
}

function keyFor(algorithm: Algorithm): string {
  const curve = CURVE[algorithm]
  return curve === undefined
    ? `an RSA key of at least ${RSA_BITS_MIN} bits`
    : `an EC key on the curve ${curve.common}`
}
