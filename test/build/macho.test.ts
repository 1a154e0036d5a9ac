/** Taking the signature off: on the smallest file that has one, laid out as <mach-o/loader.h> says. */
import { expect, test } from 'bun:test'
import { withoutSignature } from '../../build-macho.ts'

const HEADER_BYTES = 32
const SEGMENT_BYTES = 72
const CODE_BYTES = 100
const SIGNATURE_BYTES = 40

function executable(): Uint8Array {
  const linkEditOffset = HEADER_BYTES + SEGMENT_BYTES + 16
  const signatureOffset = linkEditOffset + CODE_BYTES
  const bytes = new Uint8Array(signatureOffset + SIGNATURE_BYTES).fill(7, linkEditOffset)
  const view = new DataView(bytes.buffer)
  const header = [0xfeedfacf, 0x01000007, 3, 2, 2, SEGMENT_BYTES + 16, 0, 0]
  header.forEach((word, index) => {
    view.setUint32(index * 4, word, true)
  })
  view.setUint32(HEADER_BYTES, 0x19, true)
  view.setUint32(HEADER_BYTES + 4, SEGMENT_BYTES, true)
  bytes.set(new TextEncoder().encode('__LINKEDIT'), HEADER_BYTES + 8)
  view.setBigUint64(HEADER_BYTES + 40, BigInt(linkEditOffset), true)
  view.setBigUint64(HEADER_BYTES + 48, BigInt(CODE_BYTES + SIGNATURE_BYTES), true)
  const command = [0x1d, 16, signatureOffset, SIGNATURE_BYTES]
  command.forEach((word, index) => {
    view.setUint32(HEADER_BYTES + SEGMENT_BYTES + index * 4, word, true)
  })
  return bytes
}

test('an executable without its signature says nothing of one, and is otherwise as before', () => {
  const signed = executable()
  const bare = withoutSignature(executable())
  const view = new DataView(bare.buffer, bare.byteOffset)
  expect(bare.byteLength).toBe(signed.byteLength - SIGNATURE_BYTES)
  expect(view.getUint32(16, true)).toBe(1)
  expect(view.getUint32(20, true)).toBe(SEGMENT_BYTES)
  expect(view.getBigUint64(HEADER_BYTES + 48, true)).toBe(BigInt(CODE_BYTES))
  expect(bare.subarray(-CODE_BYTES)).toEqual(signed.subarray(-CODE_BYTES - SIGNATURE_BYTES, -SIGNATURE_BYTES))
})

test('anything else is refused rather than damaged', () => {
  expect(() => withoutSignature(new Uint8Array(64))).toThrow('not a 64-bit Mach-O executable')
  expect(() => withoutSignature(withoutSignature(executable()))).toThrow()
  const longer = new Uint8Array([...executable(), 0])
  expect(() => withoutSignature(longer)).toThrow('the signature is not at the end')
})
