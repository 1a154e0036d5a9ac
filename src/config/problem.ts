/** One thing that is wrong with the configuration, and how a list of them is told to the operator. */
import { OperatorError } from '../operator-error.ts'

export interface Problem {
  /** `datum.yaml:3:5`, the name of an environment variable, or a flag. */
  readonly where: string
  /** What is wrong and what to do. Never a configured value: it may be a secret in the wrong place. */
  readonly message: string
}

/** Problems that are told at once; whoever has more mends these first. */
const PROBLEMS_MAX = 50

/** All the problems as the one error that ends the command with exit code 2. */
export function configurationError(problems: readonly Problem[]): OperatorError {
  const count = problems.length === 1 ? 'a problem' : `${problems.length} problems`
  const lines = problems
    .slice(0, PROBLEMS_MAX)
    .map(({ where, message }) => `  ${where}: ${/[.?!]$/.test(message) ? message : `${message}.`}`)
  if (problems.length > PROBLEMS_MAX) lines.push(`  … and ${problems.length - PROBLEMS_MAX} more.`)
  return new OperatorError(`The configuration has ${count}:\n${lines.join('\n')}`, 2)
}
