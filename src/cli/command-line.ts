/**
 * Reads the raw arguments: finds the command, and writes its flags in the one form (`--name=value`) that citty takes
 * apart rightly. citty reads `-config` as six short flags and accepts flags that nobody defined, so it gets to see
 * only what has passed here.
 */
import type { ArgsDef, CommandDef } from 'citty'
import { didYouMean } from '../config/suggest.ts'
import { OperatorError } from '../operator-error.ts'

export type Commands = Readonly<Record<string, CommandDef<ArgsDef>>>

interface CommandLine {
  /** Null where no command was named, which means {@link DEFAULT_COMMAND} unless help was asked for. */
  readonly command: string | null
  readonly wants: 'run' | 'help' | 'version'
  /** The command's flags, for citty. */
  readonly flags: readonly string[]
}

export const DEFAULT_COMMAND = 'serve'

/** Flags that every command has. */
const HELP = ['help', 'h']
const VERSION = ['version', 'v']

/**
 * Reads the arguments after the program's name.
 * @throws OperatorError (exit 2) with everything that is wrong. Values are not repeated: one may be a password.
 */
export function readCommandLine(raw: readonly string[], commands: Commands): CommandLine {
  const { words, flags } = split(raw, commands)
  const problems: string[] = []
  const named = words[0] === 'help' ? words.slice(1) : words
  const command = named[0] ?? null
  if (command !== null && !Object.hasOwn(commands, command)) problems.push(unknownCommand(command, commands))
  for (const _ of named.slice(1)) problems.push('There is an argument too many after the command.')

  const asked = flags.map(({ name }) => name)
  if (problems.length === 0) {
    if (words[0] === 'help' || asked.some((name) => HELP.includes(name))) {
      return { command, wants: 'help', flags: [] }
    }
    if (asked.some((name) => VERSION.includes(name))) return { command, wants: 'version', flags: [] }
  }

  const known = command === null || Object.hasOwn(commands, command) ? argsOf(commands, command) : null
  const seen = new Set<string>()
  const normal: string[] = []
  for (const { name, value } of flags) {
    if (known === null || HELP.includes(name) || VERSION.includes(name)) continue
    const definition = Object.hasOwn(known, name) ? known[name] : undefined
    const problem =
      definition === undefined
        ? unknownFlag(name, command ?? DEFAULT_COMMAND, commands)
        : seen.has(name)
          ? `--${name} is given twice.`
          : problemOfValue(name, value, definition.type === 'boolean')
    seen.add(name)
    if (problem !== null) problems.push(problem)
    else normal.push(value === null ? `--${name}` : `--${name}=${value}`)
  }
  if (problems.length > 0) {
    const help = `Run \`datum-server ${command !== null && Object.hasOwn(commands, command) ? `${command} ` : ''}--help\` for what there is.`
    throw new OperatorError([...problems, help].join('\n'), 2)
  }
  return { command, wants: 'run', flags: normal }
}

interface GivenFlag {
  readonly name: string
  /** Null if none was given. */
  readonly value: string | null
}

/**
 * Takes words and flags apart. A flag that takes a value in some command takes the next argument for it; so does one
 * that nobody knows, lest its value be taken for a command.
 */
function split(
  raw: readonly string[],
  commands: Commands,
): { readonly words: readonly string[]; readonly flags: readonly GivenFlag[] } {
  const words: string[] = []
  const flags: GivenFlag[] = []
  for (let index = 0; index < raw.length; index++) {
    const [, name, value] = /^--?([A-Za-z_][^=]*)(?:=(.*))?$/s.exec(raw[index]!) ?? []
    if (name === undefined) {
      words.push(raw[index]!)
      continue
    }
    const next = raw[index + 1]
    const isFollowed = next !== undefined && !next.startsWith('-')
    const takesNext = value === undefined && isFollowed && mayTake(name, next, commands)
    flags.push({ name, value: takesNext ? next : (value ?? null) })
    if (takesNext) index++
  }
  return { words, flags }
}

function mayTake(name: string, next: string, commands: Commands): boolean {
  if (HELP.includes(name) || VERSION.includes(name)) return false
  const definitions = Object.keys(commands).flatMap((command) => {
    const args = argsOf(commands, command)
    return Object.hasOwn(args, name) ? [args[name]!] : []
  })
  if (definitions.length === 0) return !Object.hasOwn(commands, next)
  return definitions.some(({ type }) => type === 'string')
}

function problemOfValue(name: string, value: string | null, isSwitch: boolean): string | null {
  if (isSwitch) return value === null ? null : `--${name} takes no value.`
  return value === null || value === '' ? `--${name} needs a value: --${name}=VALUE.` : null
}

function unknownCommand(command: string, commands: Commands): string {
  if (command.includes('://')) return 'A database URL goes after a flag: -db URL.'
  const known = Object.keys(commands)
  const name = /^[\w-]{1,20}$/.test(command) ? ` "${command}"` : ''
  return `There is no command${name}.${didYouMean(command, known) || ` There are: ${known.join(', ')}.`}`
}

function unknownFlag(name: string, command: string, commands: Commands): string {
  const elsewhere = Object.keys(commands).filter((other) => Object.hasOwn(argsOf(commands, other), name))
  if (elsewhere.length > 0)
    return `\`${command}\` has no flag --${name}; it belongs to ${elsewhere.join(', ')}.`
  const shown = /^[\w-]{1,30}$/.test(name) ? ` --${name}` : ' of that name'
  return `\`${command}\` has no flag${shown}.${didYouMean(name, flagsOf(commands, command))}`
}

/** The commands here define their flags as plain objects, without aliases. */
function argsOf(commands: Commands, command: string | null): ArgsDef {
  return (commands[command ?? DEFAULT_COMMAND]!.args ?? {}) as ArgsDef
}

const flagsOf = (commands: Commands, command: string) =>
  Object.keys(argsOf(commands, command)).map((name) => `--${name}`)
