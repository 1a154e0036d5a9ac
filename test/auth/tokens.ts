/** Makes tokens by hand, good and forged ones: a library that makes tokens refuses to make most of the forged ones. */
import { createHmac, type KeyObject, sign } from 'node:crypto'
import type { Algorithm } from '../../src/config/config.ts'

export type SigningKey = KeyObject | Uint8Array

export const encode = (part: string | Uint8Array) => Buffer.from(part as string).toString('base64url')

/** A token over the given header and payload. Text is taken as it is, so that it need not be JSON. */
export function makeToken(
  algorithm: Algorithm,
  key: SigningKey,
  payload: object | string | Uint8Array,
  header: object | string = {},
): string {
  const headerText =
    typeof header === 'string' ? header : JSON.stringify({ alg: algorithm, typ: 'JWT', ...header })
  const isText = typeof payload === 'string' || payload instanceof Uint8Array
  const input = `${encode(headerText)}.${encode(isText ? payload : JSON.stringify(payload))}`
  return `${input}.${encode(signature(algorithm, key, input))}`
}

function signature(algorithm: Algorithm, key: SigningKey, input: string): Uint8Array {
  const hash = `sha${algorithm.slice(2)}`
  if (algorithm.startsWith('HS'))
    return createHmac(hash, key as Uint8Array)
      .update(input)
      .digest()
  // JWS has the two numbers of an ECDSA signature side by side (RFC 7518 §3.4), not in DER.
  return sign(hash, Buffer.from(input), { key: key as KeyObject, dsaEncoding: 'ieee-p1363' })
}
