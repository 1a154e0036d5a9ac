/**
 * Flags over environment over datum.yaml over defaults → one `Config`. Collects everything that is wrong before it
 * says so. The commands call it; nothing else reads the environment or the file.
 */
import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import type { z } from 'zod'
import { readAuthSection, whyUnreadable } from './auth-section.ts'
import type { Config } from './config.ts'
import { configurationError, type Problem } from './problem.ts'
import {
  allowedOriginSchema,
  fileSchema,
  hostSchema,
  logLevelSchema,
  portSchema,
  rateLimitSchema,
  tableNameSchema,
} from './schema.ts'
import { readTables } from './tables-section.ts'
import { readYamlFile, type YamlFile } from './yaml-file.ts'

/** The flags of the command line that say what is in the configuration, as texts. */
export interface ConfigFlags {
  readonly config?: string | undefined
  readonly db?: string | undefined
  readonly port?: string | undefined
  readonly host?: string | undefined
}

interface ConfigSources {
  readonly flags: ConfigFlags
  readonly environment: Readonly<Record<string, string | undefined>>
  /** The working folder: where datum.yaml is looked for and what flags and variables are relative to. */
  readonly folder: string
  /** For commands that verify no tokens: `auth` is judged as far as the file goes, and left out. Default: false. */
  readonly withoutKey?: boolean
}

interface LoadedConfig {
  readonly config: Config
  /** Sentences for the log about what is allowed but probably not meant. */
  readonly warnings: readonly string[]
}

const DEFAULT_FILE = 'datum.yaml'
const DEFAULT_PORT = 8080
/** Every IPv4 address: in a container, loopback would be of no use. */
const DEFAULT_HOST = '0.0.0.0'
const DEFAULT_DATA_DIR = '.datum'
/** A company behind one address, or a proxy that is not in `trusted_proxies`, comes back all at once after a restart. */
const DEFAULT_UNAUTHENTICATED_PER_IP = 4_096
/** Some hundred megabytes for strangers at most, and open files left for everybody else. */
const DEFAULT_UNAUTHENTICATED = 16_384
/** A fifth of a gigabyte where views share their rows, and five where each row is held once (src/sync/held-count.ts). */
const DEFAULT_HELD_ROWS = 20_000_000

/**
 * Loads the configuration.
 * @throws OperatorError (exit 2) with every problem, each with its place.
 */
export async function loadConfig(sources: ConfigSources): Promise<LoadedConfig> {
  const { flags, folder } = sources
  const file = await openFile(sources)
  const outside = readOutside(sources)
  const tables = readTables(file.yaml, outside.value(tableNameSchema, asText, 'TABLE') ?? null)
  const auth = sources.withoutKey
    ? { auth: null, problems: [], warnings: [] }
    : await readAuthSection(file.yaml, file.folder, outside.variable('JWT_SECRET'))
  const initSql = await readInitSql(file)
  const databaseUrl = flags.db ?? outside.variable('DATABASE_URL')
  const databaseReadUrl = outside.variable('DATABASE_READ_URL')

  const fromFile = <K extends keyof FileShape>(key: K) =>
    fileSchema.shape[key].safeParse(file.yaml?.content[key]).data as z.output<FileShape[K]> | undefined
  const origins = outside.value(allowedOriginSchema, asList, 'ALLOWED_ORIGIN')
  const config: Config = {
    port: outside.value(portSchema, asNumber, 'PORT', 'port') ?? fromFile('port') ?? DEFAULT_PORT,
    host: outside.value(hostSchema, asText, 'HOST', 'host') ?? fromFile('host') ?? DEFAULT_HOST,
    allowedOrigins: origins === undefined ? (fromFile('allowed_origin') ?? null) : origins,
    rateLimit: outside.value(rateLimitSchema, asNumber, 'RATE_LIMIT') ?? fromFile('rate_limit') ?? 0,
    connectionsPerIp: fromFile('max_connections_per_ip') ?? 0,
    unauthenticatedPerIp: fromFile('max_unauthenticated_per_ip') ?? DEFAULT_UNAUTHENTICATED_PER_IP,
    unauthenticated: fromFile('max_unauthenticated') ?? DEFAULT_UNAUTHENTICATED,
    heldRows: fromFile('max_held_rows') ?? DEFAULT_HELD_ROWS,
    trustedProxies: fromFile('trusted_proxies') ?? [],
    tables: tables.tables,
    auth: auth.auth,
    databaseUrl,
    databaseReadUrl,
    embedded: {
      dataDir: resolve(file.folder, fromFile('embedded')?.data_dir ?? resolve(folder, DEFAULT_DATA_DIR)),
      initSql: initSql.text,
    },
    configFile: flags.config ?? outside.variable('CONFIG'),
    logLevel: outside.value(logLevelSchema, asText, 'LOG_LEVEL') ?? fromFile('log_level') ?? 'info',
  }

  const problems = [
    ...file.problems,
    ...tables.problems,
    ...auth.problems,
    ...initSql.problems,
    ...outside.problems,
    ...problemsOfUrl(databaseUrl, flags.db === undefined ? 'DATABASE_URL' : '--db'),
    ...problemsOfUrl(databaseReadUrl, 'DATABASE_READ_URL'),
    ...(databaseReadUrl !== null && databaseUrl === null ? [READ_URL_ALONE] : []),
  ]
  if (problems.length > 0) throw configurationError(problems)
  return { config, warnings: [...file.warnings, ...auth.warnings] }
}

/**
 * The port of a command that has no other configuration.
 * @throws OperatorError (exit 2)
 */
export function loadPort({ flags, environment }: Pick<ConfigSources, 'flags' | 'environment'>): number {
  const outside = readOutside({ flags, environment })
  const port = outside.value(portSchema, asNumber, 'PORT', 'port') ?? DEFAULT_PORT
  if (outside.problems.length > 0) throw configurationError(outside.problems)
  return port
}

type FileShape = typeof fileSchema.shape

/** Reads values from flags and variables, and gathers what is wrong with them. */
function readOutside({ flags, environment }: Pick<ConfigSources, 'flags' | 'environment'>) {
  const problems: Problem[] = []
  // Compose files and shells pass on a variable that is not set as an empty one.
  const variable = (name: string) => environment[name] || null

  /** The value of the flag, else of the variable; undefined if neither is given, or what is given is wrong. */
  function value<S extends z.ZodType>(
    schema: S,
    read: (text: string) => unknown,
    name: string,
    flag?: keyof ConfigFlags,
  ): z.output<S> | undefined {
    const flagText = flag === undefined ? undefined : flags[flag]
    const text = flagText ?? variable(name)
    if (text === null) return undefined
    const { data, error } = schema.safeParse(read(text.trim()))
    if (error) {
      const where = flagText === undefined ? name : `--${flag}`
      problems.push({ where, message: error.issues[0]!.message })
    }
    return data
  }

  return { problems, variable, value }
}

const asText = (text: string) => text
const asNumber = (text: string) => (/^\d+$/.test(text) ? Number(text) : text)
const asList = (text: string) => text.split(',').map((part) => part.trim())

/** Looks at no more than the scheme: passwords may hold anything, and the database has the last word. */
function problemsOfUrl(url: string | null, where: string): readonly Problem[] {
  if (url === null || /^postgres(ql)?:\/\/./i.test(url)) return []
  return [{ where, message: 'must be a URL like postgres://user:password@host:5432/database' }]
}

const READ_URL_ALONE: Problem = {
  where: 'DATABASE_READ_URL',
  message: 'is of a replica, so DATABASE_URL must name its primary: the embedded Postgres has none',
}

interface OpenedFile {
  readonly yaml: YamlFile | null
  /** What paths in the file are relative to. */
  readonly folder: string
  readonly problems: readonly Problem[]
  readonly warnings: readonly string[]
}

async function openFile({ flags, environment, folder }: ConfigSources): Promise<OpenedFile> {
  const named = flags.config ?? (environment.CONFIG || null)
  const where = flags.config !== undefined ? '--config' : named !== null ? 'CONFIG' : DEFAULT_FILE
  const path = resolve(folder, named ?? DEFAULT_FILE)
  const opened = { yaml: null, folder: dirname(path), problems: [], warnings: [] }
  try {
    const yaml = await readYamlFile(path, folder)
    if (yaml !== null) return { ...opened, yaml, problems: yaml.problems }
  } catch (error) {
    return { ...opened, problems: [{ where, message: `${whyUnreadable(error)} (${path})` }] }
  }
  if (named !== null) return { ...opened, problems: [{ where, message: `there is no file ${path}` }] }
  if (!(await Bun.file(resolve(folder, 'datum.yml')).exists())) return opened
  return { ...opened, warnings: ['There is a datum.yml, which is not read: its name must be datum.yaml.'] }
}

async function readInitSql({ yaml, folder }: OpenedFile): Promise<{
  readonly text: string | null
  readonly problems: readonly Problem[]
}> {
  const path = fileSchema.shape.embedded.safeParse(yaml?.content.embedded).data?.init_sql
  if (yaml === null || path === undefined) return { text: null, problems: [] }
  const absolute = resolve(folder, path)
  try {
    return { text: await readFile(absolute, 'utf8'), problems: [] }
  } catch (error) {
    const message = `"embedded.init_sql": ${whyUnreadable(error)} (${absolute})`
    return { text: null, problems: [{ where: yaml.where(['embedded', 'init_sql']), message }] }
  }
}
