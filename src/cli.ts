#!/usr/bin/env bun
/**
 * The program `datum-server`: finds the command, runs it, and turns what it comes to into an exit code. 0: done; 1:
 * something stands in the way, or `check` found something; 2: the command line or the configuration is wrong.
 */
import { stripVTControlCharacters } from 'node:util'
import { defineCommand, renderUsage, runCommand } from 'citty'
import packageJson from '../package.json' with { type: 'json' }
import { check } from './cli/check.ts'
import { type Commands, DEFAULT_COMMAND, readCommandLine } from './cli/command-line.ts'
import { demo } from './cli/demo.ts'
import { serve } from './cli/serve.ts'
import { setup } from './cli/setup.ts'
import { OperatorError } from './operator-error.ts'

const commands = { serve, setup, check, demo } as unknown as Commands

const program = defineCommand({
  meta: {
    name: 'datum-server',
    version: packageJson.version,
    description: 'Live sync between browser maps and PostGIS tables. Flags take one dash or two',
  },
  // Without a command it is `serve`, whose flags are shown as the program's.
  args: commands[DEFAULT_COMMAND]!.args!,
  subCommands: { ...commands },
})

async function main(raw: readonly string[]): Promise<number> {
  const line = readCommandLine(raw, commands)
  if (line.wants === 'version') {
    console.log(packageJson.version)
    return 0
  }
  if (line.wants === 'help') {
    const usage = await (line.command === null
      ? renderUsage(program)
      : renderUsage(commands[line.command]!, program))
    console.log(process.stdout.isTTY ? usage : stripVTControlCharacters(usage))
    return 0
  }
  const { result } = await runCommand(commands[line.command ?? DEFAULT_COMMAND]!, {
    rawArgs: [...line.flags],
  })
  return typeof result === 'number' ? result : 0
}

/** An OperatorError is a sentence for whoever runs this; anything else is a bug, told with its stack. */
function reportFailure(error: unknown): number {
  if (error instanceof OperatorError) {
    console.error(`datum-server: ${error.message}`)
    return error.exitCode
  }
  console.error('datum-server: unexpected error. Please report it.')
  console.error(error instanceof Error ? (error.stack ?? error.message) : error)
  return 1
}

process.exit(await main(process.argv.slice(2)).catch(reportFailure))
