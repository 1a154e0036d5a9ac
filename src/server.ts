/** The composition root: builds the parts, listens, and takes them down again in order. */
import { createVerifier } from './auth/verifier.ts'
import type { Config } from './config/config.ts'
import type { Database } from './db/database.ts'
import { OVERDUE_WRITE_CONNECTIONS, WRITE_CONNECTIONS } from './db/postgres.ts'
import { prepareDatabase } from './db/prepare.ts'
import { answer, HTTP_BODY_BYTES_MAX } from './http.ts'
import type { Log } from './observe/log.ts'
import { Metrics } from './observe/metrics.ts'
import { OperatorError } from './operator-error.ts'
import { LargeFrames } from './session/large-frames.ts'
import { createRateLimit } from './session/rate-limit.ts'
import type { SessionContext } from './session/session.ts'
import { type SocketData, Sockets } from './session/sockets.ts'
import { WaitingWrites } from './session/waiting-writes.ts'
import { FairGate } from './sync/fair-gate.ts'
import { Hub } from './sync/hub.ts'
import { applyBatch } from './sync/writes.ts'

export interface RunningServer {
  /** `http://host:port`, with the port that was really bound. */
  readonly url: string
  readonly port: number
  /** Resolves, with the reason, if it cannot go on and should be stopped. */
  readonly unfit: Promise<OperatorError>
  /** Stops taking sockets, closes the open ones with 1012, ends the database work under way. Does not close the database. */
  stop(): Promise<void>
}

export interface ServerParts {
  readonly config: Config
  readonly database: Database
  readonly log: Log
  /** Answers HTTP requests that are not the server's own (`/ws`, `/healthz`, `/readyz`, `/metrics`); null means 404. */
  readonly serveOther?: (request: Request) => Response | Promise<Response> | null
  /** How long a socket may take to authenticate, where it should not be the protocol's 10 seconds. */
  readonly authDeadlineSeconds?: number
}

/** Bun ends slow responses after this; its default of 10 is short for a phone that fetches the demo. */
const HTTP_IDLE_SECONDS = 60
/** Batches of one user that may run at a time. */
const WRITES_PER_USER_MAX = 3
/** A batch that takes longer gives its place to the next one and goes on. */
const OVERDUE_WRITE_MS = 1_000
/** How long a stop waits for writes under way. */
const DRAIN_MS = 5_000

/** Starts to serve. Rejects with an {@link OperatorError} whose message says what to do. */
export async function startServer(parts: ServerParts): Promise<RunningServer> {
  const { config, database, log } = parts
  const verifier = config.auth === null ? null : await createVerifier(config.auth)
  await prepareDatabase(database, config, log)
  const metrics = new Metrics()
  const { promise: unfit, resolve: giveUp } = Promise.withResolvers<OperatorError>()
  const onUnfit = (problem: string) => giveUp(new OperatorError(`Cannot go on serving: ${problem}.`))
  const hub = await Hub.start({
    database,
    tables: config.tables,
    heldRowsMax: config.heldRows,
    log,
    metrics,
    onUnfit,
  })
  let isStopping = false
  if (database.reads.counts !== null) metrics.watchReads(database.reads.counts)
  const writeGate = new FairGate(WRITE_CONNECTIONS, WRITES_PER_USER_MAX, {
    afterMs: OVERDUE_WRITE_MS,
    places: OVERDUE_WRITE_CONNECTIONS,
  })
  const context: SessionContext = {
    verifier,
    expiryToleranceSeconds: config.auth?.enforceExpiry ? config.auth.clockToleranceSeconds : null,
    hub,
    // By user, so that one with many sockets and a lock in the way leaves connections for the others.
    applyBatch: (batch) => writeGate.run(batch.owner, () => applyBatch(database.writes, batch)),
    rateLimit: createRateLimit(config.rateLimit),
    waitingWrites: new WaitingWrites(),
    largeFrames: new LargeFrames(),
    log,
    metrics,
    ...(parts.authDeadlineSeconds !== undefined && { authDeadlineSeconds: parts.authDeadlineSeconds }),
  }
  const sockets = new Sockets(config, context)
  metrics.watch({
    sockets: () => sockets.count,
    subscriptions: () => hub.subscriptionCount,
    heldRows: () => hub.heldRowCount,
    queuedBytes: () => sockets.queuedBytes,
    healthy: () => hub.healthy,
  })
  const server = await listenOr(() => hub.stop(), config, {
    idleTimeout: HTTP_IDLE_SECONDS,
    maxRequestBodySize: HTTP_BODY_BYTES_MAX,
    // Bun's page for errors shows source code; nobody outside is to see that.
    development: false,
    error(error: Error) {
      log.error(`A request failed (${error.name}).`)
      return new Response('The server made a mistake.\n', { status: 500 })
    },
    fetch: (request: Request, self: Bun.Server<SocketData>) =>
      answer(request, {
        config,
        metrics,
        isReady: () => hub.healthy,
        isStopping: () => isStopping,
        tooMany: (handshake) => sockets.tooMany(handshake, self),
        upgrade: (handshake, headers) => sockets.upgrade(handshake, self, headers),
        serveOther: parts.serveOther,
      }),
    websocket: sockets.handlers,
  })
  return {
    url: `http://${hostOfUrl(config.host)}:${server.port}`,
    port: server.port ?? config.port,
    unfit,
    async stop() {
      isStopping = true
      await Promise.race([sockets.close(), new Promise((resolve) => setTimeout(resolve, DRAIN_MS))])
      await server.stop(true)
      await hub.stop()
    },
  }
}

/** Listens; where that fails, takes down what was started before, which would keep the process alive. */
async function listenOr(
  undo: () => Promise<void>,
  config: Config,
  options: Omit<Bun.Serve.Options<SocketData>, 'port' | 'hostname'>,
): Promise<Bun.Server<SocketData>> {
  try {
    return Bun.serve<SocketData>({
      ...options,
      port: config.port,
      hostname: config.host,
      // With `development: false` Bun would share the port with another process that does so too, and the kernel would
      // deal the connections out between them.
      reusePort: false,
    } as Bun.Serve.Options<SocketData>)
  } catch (error) {
    await undo()
    const code = (error as { code?: string }).code
    throw new OperatorError(
      code === 'EADDRINUSE'
        ? `Port ${config.port} is in use. Choose another with --port, or 0 for any free one.`
        : `Cannot listen on ${config.host}:${config.port} (${code ?? 'unknown error'}). Check --host and --port.`,
    )
  }
}

/** A host that one can connect to, as a URL has it (IPv6 in brackets, RFC 3986 §3.2.2). */
function hostOfUrl(host: string): string {
  if (host === '0.0.0.0' || host === '::') return 'localhost'
  return host.includes(':') ? `[${host}]` : host
}
