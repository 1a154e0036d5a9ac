/** The floor of a snapshot, a helper process: psql copies the same JSON to standard output, and JSON.parse takes it. */
import { answerCommands } from '../helper-process.ts'

interface CopyArgument {
  readonly psql: string
  readonly url: string
  /** The claim that the policy reads. */
  readonly orgId: string
  /** Has a column `json`. */
  readonly query: string
}

answerCommands({
  async copy({ psql, url, orgId, query }: CopyArgument): Promise<{ ms: number; rows: number }> {
    Bun.gc(true)
    const began = performance.now()
    const child = Bun.spawn(
      [
        ...[psql, url, '--quiet', '--no-psqlrc', '--command', `set datum.org_id = '${orgId}'`],
        ...['--command', `copy (select json from (${query}) q) to stdout`],
      ],
      { stdout: 'pipe', stderr: 'inherit', stdin: 'ignore' },
    )
    const text = await new Response(child.stdout).text()
    // The rows of the benchmark hold nothing that COPY would escape, so a line is a row.
    const rows = JSON.parse(`[${text.trimEnd().replaceAll('\n', ',')}]`) as unknown[]
    return { ms: performance.now() - began, rows: rows.length }
  },
})
