/** Makes sure, before a server starts, that the database has what live sync needs; and says what is dangerous about it. */
import type { Config, TableConfig } from '../config/config.ts'
import type { Log } from '../observe/log.ts'
import { OperatorError } from '../operator-error.ts'
import { checkBeforeStart, setupCommand } from './check.ts'
import type { Database } from './database.ts'
import type { EmbeddedDatabase } from './embedded.ts'
import { install, installState } from './install.ts'

/** Installs what is missing where the role may. Rejects with an {@link OperatorError} that has the command to run otherwise. */
export async function prepareDatabase(database: Database, config: Config, log: Log): Promise<void> {
  const { sql } = database
  const { tables } = config
  const installed = await installState(sql, tables)
  if (installed.state === 'newer' || installed.state === 'foreign')
    throw new OperatorError(`Cannot serve: ${installed.problem}.`)
  if (installed.state !== 'ready') {
    if (isEmbedded(database)) {
      await database.asOwner((owner) => install(owner, { tables, role: database.role }))
    } else {
      await installAsServer(database, config, installed.problem)
    }
    log.info('Installed what live sync needs in the schema `datum`, and change triggers.')
  }
  for (const { subject, problem, remedy } of await checkBeforeStart(sql, config)) {
    log.warn(`${subject}: ${problem}\n${remedy}`)
  }
}

/** Sets up a table that was dropped and made anew, where the server's role may. */
export function installAgain(database: Database, table: TableConfig): Promise<void> {
  if (isEmbedded(database)) {
    return database.asOwner((owner) => install(owner, { tables: [table], role: database.role }))
  }
  return install(database.sql, { tables: [table], role: null })
}

async function installAsServer(database: Database, config: Config, problem: string): Promise<void> {
  try {
    await install(database.sql, { tables: config.tables, role: null })
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error
    throw new OperatorError(
      `Live sync is not set up: ${problem}, and this role cannot do it.\n${error.message}\nRun once, as the owner of the tables:\n\n  ${await setupCommand(database.sql, config)}\n`,
    )
  }
}

function isEmbedded(database: Database): database is EmbeddedDatabase {
  return database.kind === 'embedded'
}
