/** What every command does first: load the configuration, look at the key, make the log, and pass on the warnings. */
import { importVerificationKey } from '../auth/keys.ts'
import type { Config } from '../config/config.ts'
import { type ConfigFlags, loadConfig } from '../config/load.ts'
import { createLog, type Log } from '../observe/log.ts'

interface Configured {
  readonly config: Config
  readonly log: Log
}

/**
 * Loads the configuration of this process. A command that verifies no tokens says `withoutKey`: then `auth` is null
 * and neither JWT_SECRET nor the PEM is needed.
 * @throws OperatorError (exit 2)
 */
export async function configure(
  flags: ConfigFlags,
  { withoutKey = false }: { readonly withoutKey?: boolean } = {},
): Promise<Configured> {
  const { config, warnings } = await loadConfig({
    flags,
    environment: process.env,
    folder: process.cwd(),
    withoutKey,
  })
  const aboutKey = config.auth === null ? [] : (await importVerificationKey(config.auth)).warnings
  const log = createLog(config.logLevel)
  for (const warning of [...warnings, ...aboutKey]) log.warn(warning)
  return { config, log }
}
