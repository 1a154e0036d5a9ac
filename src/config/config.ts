/** What the server was told to do: one readonly value, made by `load.ts` from flags, environment and datum.yaml. */

/** The nine signature algorithms of RFC 7518 §3.1 that a server can be pinned to. */
export const ALGORITHMS = [
  'HS256',
  'HS384',
  'HS512',
  'RS256',
  'RS384',
  'RS512',
  'ES256',
  'ES384',
  'ES512',
] as const

export type Algorithm = (typeof ALGORITHMS)[number]

export interface AuthConfig {
  readonly algorithm: Algorithm
  /** HS algorithms: the bytes of JWT_SECRET (UTF-8). RS and ES: the PEM text that `jwt_public_key` names. */
  readonly key:
    | { readonly kind: 'secret'; readonly secret: Uint8Array }
    | { readonly kind: 'pem'; readonly pem: string; readonly path: string }
  /** Required `iss` (RFC 7519 §4.1.1), any of these; null: not looked at. */
  readonly issuers: readonly string[] | null
  /** Required `aud` (RFC 7519 §4.1.3), any of these; null: not looked at. */
  readonly audiences: readonly string[] | null
  /** Leeway for `exp` and `nbf`. */
  readonly clockToleranceSeconds: number
  /** Close a socket with 4401 at its token's `exp`, even where the token was given as a plain string. */
  readonly enforceExpiry: boolean
}

export interface TableConfig {
  readonly schema: string
  readonly name: string
  readonly idColumn: string
  /** null: the table's only geometry or geography column, if it has exactly one. */
  readonly geometryColumn: string | null
}

interface EmbeddedConfig {
  /** Folder of the embedded database. Default `.datum` in the working folder. */
  readonly dataDir: string
  /** SQL that is run once, when the embedded database is made; null: make a plain `features` table. */
  readonly initSql: string | null
}

export interface Config {
  /** 0: any free port. */
  readonly port: number
  readonly host: string
  /** Values of the Origin header that may open a socket; null: any. */
  readonly allowedOrigins: readonly string[] | null
  /** Edits per minute and IP address; 0: no limit. */
  readonly rateLimit: number
  /** Open sockets per IP address; 0: no limit. */
  readonly connectionsPerIp: number
  /** Open sockets that have not authenticated yet, where there is `auth:`, per IP address and in all; 0: no limit. */
  readonly unauthenticatedPerIp: number
  readonly unauthenticated: number
  /** Rows that all views of the process may hold together; 0: no limit. */
  readonly heldRows: number
  /** Addresses and CIDR ranges of proxies whose X-Forwarded-For is believed. */
  readonly trustedProxies: readonly string[]
  /** In the order of the configuration: the first is what a client gets that names none. Never empty. */
  readonly tables: readonly TableConfig[]
  /** null: nothing is asked of anybody. */
  readonly auth: AuthConfig | null
  /** null: the embedded Postgres. */
  readonly databaseUrl: string | null
  /** Of a streaming replica of it, to read rows from. Default: none. */
  readonly databaseReadUrl?: string | null
  readonly embedded: EmbeddedConfig
  /** The datum.yaml that was read, as it was named; for commands that are shown to the operator. */
  readonly configFile?: string | null
  readonly logLevel: LogLevel
}

export const LOG_LEVELS = ['silent', 'error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]
