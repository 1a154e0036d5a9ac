/** Runs a server until SIGTERM or SIGINT, and takes it down in bounded time. Used by `serve` and `demo`. */
import type { Log } from '../observe/log.ts'
import type { RunningServer } from '../server.ts'

/** How long taking down may last. Below the ten seconds after which container runtimes kill. */
const STOP_SECONDS_MAX = 9

/**
 * Starts the server and resolves when a signal has ended it. Rejects with the reason if it had to be ended because it
 * could not go on. A signal during the start takes effect when the start is
 * done, however long that is: an embedded database is not to be left half made. A second signal, or a stop that takes
 * longer than {@link STOP_SECONDS_MAX}, ends the process with exit code 1.
 */
export async function runUntilSignal(
  log: Log,
  start: () => Promise<Pick<RunningServer, 'url' | 'stop' | 'unfit'>>,
): Promise<void> {
  let isSignalled = false
  const signalled = nextSignal(log).then((): undefined => {
    isSignalled = true
  })
  const server = await start()
  if (!isSignalled) {
    const socketUrl = `${server.url.replace(/^http/, 'ws')}/ws`
    console.log(`datum-server is ready: ${server.url} (WebSocket at ${socketUrl})`)
  }
  const reason = await Promise.race([signalled, server.unfit])
  if (reason !== undefined) log.error('Closing the sockets and stopping.')
  setTimeout(() => {
    log.error(`Not stopped after ${STOP_SECONDS_MAX} s; leaving as it is.`)
    process.exit(1)
  }, STOP_SECONDS_MAX * 1000).unref()
  await server.stop()
  if (reason !== undefined) throw reason
  log.info('Stopped.')
}

function nextSignal(log: Log): Promise<void> {
  return new Promise((resolve) => {
    let isStopping = false
    const onSignal = (signal: NodeJS.Signals) => {
      if (isStopping) process.exit(1)
      isStopping = true
      log.info(`${signal}: closing the sockets and stopping. Once more to stop at once.`)
      resolve()
    }
    process.on('SIGTERM', onSignal)
    process.on('SIGINT', onSignal)
  })
}
