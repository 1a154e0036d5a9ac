/** Bytes of a text in UTF-8, counted only where its characters leave the answer open. Server only. */

/** What one UTF-16 code unit takes in UTF-8 at most: a pair of surrogates takes four. */
const BYTES_PER_CHARACTER_MAX = 3

/** Whether a text has more bytes than that. */
export function isLonger(text: string, bytes: number): boolean {
  return text.length * BYTES_PER_CHARACTER_MAX > bytes && Buffer.byteLength(text) > bytes
}
