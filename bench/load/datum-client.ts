/** A helper process that is one application with a {@link DatumClient}, as it is in a browser. */
import { DatumClient } from '../../client/index.ts'
import type { Bbox } from '../../src/wire/messages.ts'
import { type Claims, mintToken } from '../../test/support/token.ts'
import { answerCommands } from '../helper-process.ts'

export interface Connected {
  readonly ms: number
  readonly rows: number
}

answerCommands({
  /** From `connect` to the complete view. */
  async connect({ url, bbox, claims }: { url: string; bbox: Bbox; claims: Claims }): Promise<Connected> {
    const token = await mintToken(claims)
    Bun.gc(true)
    const began = performance.now()
    const client = await DatumClient.connect({ serverUrl: url, bbox, token, connectTimeout: 60_000 })
    const ms = performance.now() - began
    const rows = client.rows.size
    await client.disconnect()
    return { ms, rows }
  },
})
