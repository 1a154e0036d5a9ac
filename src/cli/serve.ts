/** `datum-server serve`: the server on the configured database, until a signal. */
import { defineCommand } from 'citty'
import { configFlag, dbFlag, hostFlag, portFlag } from './flags.ts'

export const serve = defineCommand({
  meta: { name: 'serve', description: 'Serve the tables (the default command)' },
  args: { config: configFlag, db: dbFlag, port: portFlag, host: hostFlag },
  async run({ args }) {
    const { configure } = await import('./configure.ts')
    const { config, log } = await configure(args)
    const [{ withDatabase }, { runUntilSignal }, { startServer }] = await Promise.all([
      import('./database.ts'),
      import('./until-signal.ts'),
      import('../server.ts'),
    ])
    if (config.auth === null) {
      log.info(
        'No "auth:" in the configuration: whoever reaches this server sees and writes what its role may.',
      )
    }
    await runUntilSignal(log, async () => {
      const { promise: stopped, resolve: finish } = Promise.withResolvers<void>()
      const { promise: started, ...settle } = Promise.withResolvers<Awaited<ReturnType<typeof startServer>>>()
      const closed = withDatabase(config, log, async (database) => {
        settle.resolve(await startServer({ config, database, log }))
        await stopped
      })
      closed.catch(settle.reject)
      const server = await started
      return {
        url: server.url,
        unfit: server.unfit,
        async stop() {
          await server.stop()
          finish()
          await closed
        },
      }
    })
  },
})
