/**
 * Takes the code signature off a macOS executable. `bun build --compile` signs what it makes for arm64, but leaves on
 * an x64 executable the signature of the bare runtime, which no longer fits and may keep macOS from starting it
 * (oven-sh/bun#39837). Intel Macs run unsigned programs, and one without a signature can be signed properly.
 *
 * The layout is that of Apple's <mach-o/loader.h>, 64 bit, little endian.
 */

const MAGIC_64 = 0xfeedfacf
const LC_SEGMENT_64 = 0x19
const LC_CODE_SIGNATURE = 0x1d
const HEADER_BYTES = 32
const SIGNATURE_COMMAND_BYTES = 16

/** Returns the executable without its signature, or throws if it is not laid out as linkers do. */
export function withoutSignature(executable: Uint8Array): Uint8Array {
  const view = new DataView(executable.buffer, executable.byteOffset, executable.byteLength)
  const u32 = (at: number) => view.getUint32(at, true)
  const u64 = (at: number) => Number(view.getBigUint64(at, true))
  if (u32(0) !== MAGIC_64) throw new Error('not a 64-bit Mach-O executable')

  const commandCount = u32(16)
  let linkEdit: number | null = null
  let at = HEADER_BYTES
  for (let index = 0; index < commandCount - 1; index += 1) {
    const segment = new TextDecoder().decode(executable.subarray(at + 8, at + 24)).replace(/\0+$/, '')
    if (u32(at) === LC_SEGMENT_64 && segment === '__LINKEDIT') linkEdit = at
    at += u32(at + 4)
  }
  // Linkers put the signature last, in the file and among the commands, since it covers all before it.
  if (linkEdit === null || u32(at) !== LC_CODE_SIGNATURE) throw new Error('no signature where it should be')
  const start = u32(at + 8)
  if (start + u32(at + 12) !== executable.byteLength) throw new Error('the signature is not at the end')

  view.setUint32(16, commandCount - 1, true)
  view.setUint32(20, u32(20) - SIGNATURE_COMMAND_BYTES, true)
  executable.fill(0, at, at + SIGNATURE_COMMAND_BYTES)
  const linkEditOffset = u64(linkEdit + 40)
  view.setBigUint64(linkEdit + 48, BigInt(start - linkEditOffset), true)
  return executable.subarray(0, start)
}
