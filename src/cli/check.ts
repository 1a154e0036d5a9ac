/** `datum-server check`: what is wrong with the role, the tables, and the policies. Exit code 1 if anything is. */
import { defineCommand } from 'citty'
import type { Finding } from '../db/check.ts'
import { OperatorError } from '../operator-error.ts'
import { configFlag, dbFlag } from './flags.ts'

export const check = defineCommand({
  meta: { name: 'check', description: 'Say what is wrong with the role, the tables, and the policies' },
  args: { config: configFlag, db: dbFlag },
  async run({ args }): Promise<number> {
    const { configure } = await import('./configure.ts')
    const { config, log } = await configure(args)
    if (config.databaseUrl === null) {
      throw new OperatorError(
        'check needs a database: give the URL that the server will have, with -db or DATABASE_URL.',
        2,
      )
    }
    const [{ withDatabase }, { checkDatabase }] = await Promise.all([
      import('./database.ts'),
      import('../db/check.ts'),
    ])
    const findings = await withDatabase(config, log, (database) => checkDatabase(database, config))
    console.log(report(findings))
    return findings.length === 0 ? 0 : 1
  },
})

/** The findings as text: errors first, each with its remedy below. */
export function report(findings: readonly Finding[]): string {
  if (findings.length === 0) return 'Nothing is wrong.'
  const errors = findings.filter(({ severity }) => severity === 'error')
  const warnings = findings.filter(({ severity }) => severity === 'warning')
  const lines = [...errors, ...warnings].map(
    ({ severity, subject, problem, remedy }) =>
      `${severity.padEnd(7)}  ${subject}: ${problem}\n${indent(remedy)}`,
  )
  return [...lines, `${count(errors.length, 'error')}, ${count(warnings.length, 'warning')}.`].join('\n\n')
}

const indent = (text: string) => text.replace(/^/gm, '         ')

const count = (number: number, noun: string) => `${number} ${noun}${number === 1 ? '' : 's'}`
