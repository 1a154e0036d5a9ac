/** Reads the files that an operator writes, and no others: a path may name a device that never ends. */
import { open } from 'node:fs/promises'

/** Bytes of a datum.yaml or a PEM: a hundred times what one has, and still parsed in a moment. */
export const SMALL_FILE_BYTES_MAX = 64 * 1024

/** The file has more than {@link SMALL_FILE_BYTES_MAX}. */
export class FileTooLarge extends Error {}

/**
 * Reads a file that must be small. Pipes are read too (`/dev/fd/3`).
 * @throws FileTooLarge, or what opening and reading throw.
 */
export async function readSmallFile(path: string): Promise<Uint8Array> {
  const file = await open(path)
  try {
    const bytes = new Uint8Array(SMALL_FILE_BYTES_MAX + 1)
    let length = 0
    while (length < bytes.length) {
      const { bytesRead } = await file.read(bytes, length, bytes.length - length)
      if (bytesRead === 0) return bytes.slice(0, length)
      length += bytesRead
    }
    throw new FileTooLarge()
  } finally {
    await file.close()
  }
}
