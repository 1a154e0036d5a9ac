/** `datum-server demo`: a page with a map on an embedded Postgres. What it shows is in the folder `demo`. */
import { defineCommand } from 'citty'
import { portFlag } from './flags.ts'

export const demo = defineCommand({
  meta: {
    name: 'demo',
    description: 'A map with real data on an embedded Postgres, and identities to switch between',
  },
  args: { port: portFlag },
  async run({ args }) {
    const { loadPort } = await import('../config/load.ts')
    const port = loadPort({ flags: args, environment: process.env })
    const [{ createLog }, { runUntilSignal }, { runDemo }] = await Promise.all([
      import('../observe/log.ts'),
      import('./until-signal.ts'),
      import('../../demo/run.ts'),
    ])
    const log = createLog('info')
    await runUntilSignal(log, () => runDemo({ port, log }))
  },
})
