/** What a command says when its database cannot be used: words that say what to do, and no stack. */
import { expect, test } from 'bun:test'
import { explainFailure } from '../../src/cli/database.ts'
import { OperatorError } from '../../src/operator-error.ts'

const URL = 'postgres://app:a-password@db.example/places'
const failure = (code: string) => Object.assign(new Error('words of Postgres'), { code })

test('a database that is away, or busy for now, is explained without its password', () => {
  for (const [code, words] of [
    ['ECONNREFUSED', 'nothing listens there'],
    // What a start ran into beside an ALTER POLICY and a VACUUM FULL of the application.
    ['40P01', 'could not answer at the moment (40P01). Try again.'],
    ['55P03', 'could not answer at the moment (55P03). Try again.'],
    ['57P01', 'could not answer at the moment (57P01). Try again.'],
  ] as const) {
    const explained = explainFailure(failure(code), URL)
    expect(explained).toBeInstanceOf(OperatorError)
    expect(String(explained)).toContain(words)
    expect(String(explained)).not.toContain('a-password')
    expect(String(explained)).not.toContain('words of Postgres')
  }
})

test('an error that nobody expected stays what it is', () => {
  const unexpected = [failure('42703'), new TypeError('a mistake')]
  for (const error of unexpected) expect(explainFailure(error, URL)).toBe(error)
})
