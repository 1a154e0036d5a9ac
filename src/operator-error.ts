/**
 * Something only the person who runs the server can mend: a wrong key, a missing table, a database that is away. The
 * message says what is wrong and what to do, and holds no secret; the command prints it without a stack and exits.
 */
export class OperatorError extends Error {
  override readonly name = 'OperatorError'
  /** 2: the command line or the configuration is wrong. 1: something else stands in the way. */
  readonly exitCode: 1 | 2

  constructor(message: string, exitCode: 1 | 2 = 1) {
    super(message)
    this.exitCode = exitCode
  }
}
