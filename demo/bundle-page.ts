/** Bundles the demo's page: its script with Leaflet and the client, its style, and the outlines of the world. */
import { join } from 'node:path'
import { OperatorError } from '../src/operator-error.ts'

/** A file that the demo serves. */
export interface PageFile {
  /** The path of its URL. */
  readonly path: string
  readonly contentType: string
  readonly text: string
}

const PAGE = join(import.meta.dir, 'page')

/** Rejects with an `OperatorError` that carries the bundler's words if the page does not build. */
export async function bundlePage(): Promise<readonly PageFile[]> {
  const built = await Bun.build({
    entrypoints: [join(PAGE, 'main.ts'), join(PAGE, 'style.css')],
    target: 'browser',
    minify: true,
    naming: '[name].[ext]',
    throw: false,
  })
  if (!built.success) {
    const problems = built.logs.map(String).join('\n')
    throw new OperatorError(`The demo's page does not build:\n${problems}`)
  }
  const outputs = await Promise.all(
    built.outputs.map(async (output) => {
      const name = output.path.split('/').at(-1)!
      const contentType = name.endsWith('.css') ? 'text/css; charset=utf-8' : 'text/javascript; charset=utf-8'
      return { path: `/demo/${name}`, contentType, text: await output.text() }
    }),
  )
  const world = Bun.file(Bun.fileURLToPath(import.meta.resolve('world-atlas/countries-50m.json')))
  return [
    {
      path: '/',
      contentType: 'text/html; charset=utf-8',
      text: await Bun.file(join(PAGE, 'index.html')).text(),
    },
    ...outputs,
    { path: '/demo/world.json', contentType: 'application/json', text: await world.text() },
  ]
}
