/**
 * Words to the person who runs the server, on standard error. Callers pass facts that are safe to print: never a
 * token, a secret, a claim's value, a row, or an SQL parameter.
 */
import { type ConsolaInstance, createConsola, LogLevels } from 'consola'
import type { LogLevel } from '../config/config.ts'

export type Log = Pick<ConsolaInstance, 'error' | 'warn' | 'info' | 'debug' | 'success'>

const CONSOLA_LEVEL: Record<LogLevel, number> = {
  silent: LogLevels.silent,
  error: LogLevels.error,
  warn: LogLevels.warn,
  info: LogLevels.info,
  debug: LogLevels.debug,
}

export function createLog(level: LogLevel): Log {
  return createConsola({ level: CONSOLA_LEVEL[level], stdout: process.stderr, stderr: process.stderr })
}
