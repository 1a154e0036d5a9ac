/** `datum-server setup`: installs, upgrades or removes, as the owner of the tables, what live sync needs in the database. */
import { defineCommand } from 'citty'
import { OperatorError } from '../operator-error.ts'
import { configFlag, dbFlag } from './flags.ts'

export const setup = defineCommand({
  meta: {
    name: 'setup',
    description: 'Install or upgrade what live sync needs in the database. May be run again at any time',
  },
  args: {
    config: configFlag,
    db: {
      ...dbFlag,
      valueHint: 'OWNER_URL',
      description: "The database, as the tables' owner (DATABASE_URL)",
    },
    role: {
      type: 'string',
      default: 'datum_app',
      description: 'The role that the server will connect as; it is granted what it needs',
    },
    print: { type: 'boolean', description: 'Print the SQL and change nothing' },
    uninstall: {
      type: 'boolean',
      description: 'Remove the triggers and the schema `datum`; tables and policies stay as they are',
    },
  },
  async run({ args }) {
    const { configure } = await import('./configure.ts')
    const { config, log } = await configure(args, { withoutKey: true })
    if (config.databaseUrl === null) {
      throw new OperatorError(
        "setup needs a database: give the URL of the tables' owner with -db or DATABASE_URL. " +
          '(The embedded Postgres needs no setup.)',
        2,
      )
    }
    const [{ withPatientDatabase }, { install, installSql }, { uninstall, uninstallSql }] = await Promise.all(
      [import('./database.ts'), import('../db/install.ts'), import('../db/uninstall.ts')],
    )
    const options = { tables: config.tables, role: args.role }
    await withPatientDatabase(config, log, async ({ sql }) => {
      if (args.uninstall) {
        if (args.print) return console.log((await uninstallSql(sql)).trimEnd())
        await uninstall(sql)
        log.success(
          'Live sync is uninstalled: the triggers and the schema `datum` are gone. Servers stop by themselves.',
        )
        return
      }
      if (args.print) {
        // Not process.stdout.write: of what it still holds, the end of the process leaves no more than a pipe takes.
        console.log((await installSql(sql, options)).trimEnd())
        return
      }
      await install(sql, options)
      const tables = config.tables.map(({ schema, name }) => `${schema}.${name}`).join(', ')
      log.success(`Live sync is set up for ${tables}. Start the server as the role ${args.role}.`)
    })
  },
})
