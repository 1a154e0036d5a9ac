/**
 * What the demo serves to a browser. From source it is bundled when the demo starts; `build.ts` bundles it ahead and
 * puts another module in this one's place, so that a packaged demo needs neither the bundler nor the map library.
 */
import { bundlePage, type PageFile } from './bundle-page.ts'

export async function readPageFiles(): Promise<readonly PageFile[]> {
  return await bundlePage()
}
