/**
 * `datum-server demo`: an embedded Postgres with real places in it, the server in front, and a page with a map. Uses
 * the server exactly as its commands do; nothing in the server knows of the demo.
 */
import type { Config } from '../src/config/config.ts'
import { type EmbeddedDatabase, openEmbedded } from '../src/db/embedded.ts'
import type { Log } from '../src/observe/log.ts'
import { type RunningServer, startServer } from '../src/server.ts'
import type { PageFile } from './bundle-page.ts'
import placesText from './data/places.tsv' with { type: 'text' }
import { IDENTITIES } from './identities.ts'
import { readPageFiles } from './page-files.ts'
import { parsePlaces } from './places.ts'
import schemaSql from './schema.sql' with { type: 'text' }
import { signToken, TOKEN_ISSUER } from './token.ts'

interface DemoParts {
  /** 0: any free port. */
  readonly port: number
  readonly log: Log
}

/** Resolves once the page can be opened; its `stop` also closes the database, which lives in memory. */
export async function runDemo({ port, log }: DemoParts): Promise<RunningServer> {
  log.info('Starting an embedded Postgres with PostGIS, in memory. This takes a few seconds.')
  const [database, files] = await Promise.all([
    openEmbedded({ dataDir: null, initSql: schemaSql, log }),
    readPageFiles(),
  ])
  try {
    const count = await loadPlaces(database)
    log.info(`Loaded ${count.toLocaleString('en')} places (GeoNames, CC BY 4.0).`)
    const secret = crypto.getRandomValues(new Uint8Array(32))
    const config = demoConfig(port, secret)
    const server = await startServer({ config, database, log, serveOther: demoRoutes(files, secret) })
    return {
      ...server,
      async stop() {
        await server.stop()
        await database.close()
      },
    }
  } catch (cause) {
    await database.close()
    throw cause
  }
}

async function loadPlaces(database: EmbeddedDatabase): Promise<number> {
  const places = parsePlaces(placesText)
  await database.asOwner(
    (sql) => sql`
      insert into places (name, country, population, is_public, org_id, geom)
      select p.name, p.country, p.population, p.is_capital, p.org_id,
             st_setsrid(st_makepoint(p.longitude, p.latitude), 4326)
      from jsonb_to_recordset(${sql.json(places)}) as p
        (name text, country text, population integer, is_capital boolean, org_id text,
         longitude float8, latitude float8)`,
  )
  return places.length
}

function demoConfig(port: number, secret: Uint8Array): Config {
  return {
    port,
    // Whoever reaches the demo is given a token, so only this machine may.
    host: '127.0.0.1',
    allowedOrigins: null,
    rateLimit: 0,
    connectionsPerIp: 0,
    unauthenticatedPerIp: 0,
    unauthenticated: 0,
    heldRows: 0,
    trustedProxies: [],
    tables: [{ schema: 'public', name: 'places', idColumn: 'id', geometryColumn: 'geom' }],
    auth: {
      algorithm: 'HS256',
      key: { kind: 'secret', secret },
      issuers: [TOKEN_ISSUER],
      audiences: null,
      clockToleranceSeconds: 0,
      enforceExpiry: false,
    },
    databaseUrl: null,
    embedded: { dataDir: '', initSql: null },
    logLevel: 'info',
  }
}

/** Answers the page's files and `/demo/token?as=<identity>`; null for anything else. */
function demoRoutes(files: readonly PageFile[], secret: Uint8Array) {
  const byPath = new Map(files.map((file) => [file.path, file]))
  return (request: Request): Response | Promise<Response> | null => {
    const url = new URL(request.url)
    if (url.pathname === '/demo/token') return answerToken(url.searchParams.get('as'), secret)
    const file = byPath.get(url.pathname)
    if (file === undefined) return null
    return new Response(file.text, {
      headers: {
        'content-type': file.contentType,
        'cache-control': 'no-cache',
        'content-security-policy':
          "default-src 'self'; connect-src 'self' ws: wss:; style-src 'self' 'unsafe-inline'; img-src 'self' data:",
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
      },
    })
  }
}

async function answerToken(as: string | null, secret: Uint8Array): Promise<Response> {
  const identity = IDENTITIES.find((one) => one.id === as)
  if (identity === undefined) return new Response('There is nobody of that name here.\n', { status: 404 })
  return new Response(await signToken(identity, secret), {
    headers: { 'content-type': 'text/plain', 'cache-control': 'no-store' },
  })
}
