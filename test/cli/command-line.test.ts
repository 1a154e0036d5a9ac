/** Raw arguments to a command and its flags: one dash or two, and nothing unknown gets through. */
import { describe, expect, test } from 'bun:test'
import { check } from '../../src/cli/check.ts'
import { type Commands, readCommandLine } from '../../src/cli/command-line.ts'
import { demo } from '../../src/cli/demo.ts'
import { serve } from '../../src/cli/serve.ts'
import { setup } from '../../src/cli/setup.ts'
import { OperatorError } from '../../src/operator-error.ts'

const commands = { serve, setup, check, demo } as unknown as Commands
const read = (...raw: string[]) => readCommandLine(raw, commands)

describe('taken', () => {
  test.each([
    [['-config', 'x.yaml', '-db', 'postgres://h/d']],
    [['--config', 'x.yaml', '--db', 'postgres://h/d']],
    [['-config=x.yaml', '-db=postgres://h/d']],
    [['--config=x.yaml', '--db=postgres://h/d']],
    [['serve', '-config', 'x.yaml', '--db=postgres://h/d']],
    [['-config', 'x.yaml', 'serve', '-db', 'postgres://h/d']],
  ])('%j', (raw) => {
    const line = read(...raw)
    expect(line.command ?? 'serve').toBe('serve')
    expect(line.wants).toBe('run')
    expect(line.flags).toEqual(['--config=x.yaml', '--db=postgres://h/d'])
  })

  test.each([
    [['setup', '-role', 'app', '-print'], 'setup', ['--role=app', '--print']],
    [['-print', 'setup'], 'setup', ['--print']],
    [['demo', '-port', '0'], 'demo', ['--port=0']],
    [['check', '--db=postgres://h/d?a=b=c'], 'check', ['--db=postgres://h/d?a=b=c']],
    [['--db=-x'], null, ['--db=-x']],
    [[], null, []],
  ] as const)('%j', (raw, command, flags) => {
    expect(read(...raw)).toEqual({ command, wants: 'run', flags: [...flags] })
  })

  test.each([
    [['--help'], null, 'help'],
    [['-help'], null, 'help'],
    [['-h'], null, 'help'],
    [['help'], null, 'help'],
    [['help', 'setup'], 'setup', 'help'],
    [['setup', '--help'], 'setup', 'help'],
    [['-h', 'check'], 'check', 'help'],
    [['demo', '-confg', 'x', '--help'], 'demo', 'help'],
    [['--version'], null, 'version'],
    [['-v'], null, 'version'],
    [['check', '-version'], 'check', 'version'],
  ] as const)('%j', (raw, command, wants) => {
    expect(read(...raw)).toEqual({ command, wants, flags: [] })
  })
})

describe('refused', () => {
  test.each([
    [
      ['-confg', 'x'],
      ['no flag --confg', '"--config"'],
    ],
    [
      ['--CONFIG', 'x'],
      ['no flag --CONFIG', '"--config"'],
    ],
    [['-c', 'x'], ['no flag --c']],
    [['sreve'], ['no command "sreve"', '"serve"']],
    [['start'], ['no command "start"', 'serve, setup, check, demo']],
    [['constructor'], ['no command "constructor"']],
    [['-constructor', 'x'], ['no flag --constructor']],
    [['-__proto__', 'x'], ['no flag']],
    [
      ['--role', 'x'],
      ['`serve` has no flag --role', 'setup'],
    ],
    [
      ['check', '-port', '1'],
      ['`check` has no flag --port', 'serve, demo'],
    ],
    [['-port'], ['--port needs a value']],
    [['-port', '-host', 'x'], ['--port needs a value']],
    [['--db='], ['--db needs a value']],
    [['-port', '1', '--port=2'], ['--port is given twice']],
    [['setup', '--print=yes'], ['--print takes no value']],
    [['setup', '--no-print'], ['no flag --no-print']],
    [['serve', 'setup'], ['an argument too many']],
    [['--', 'serve'], ['no command']],
    [['-'], ['no command']],
    [
      ['-prt', '1', '-hots=x', '-db'],
      ['"--port"', '"--host"', '--db needs a value'],
    ],
  ])('%j', (raw, words) => {
    let message = ''
    try {
      read(...raw)
    } catch (error) {
      expect(error).toBeInstanceOf(OperatorError)
      expect((error as OperatorError).exitCode).toBe(2)
      message = (error as OperatorError).message
    }
    for (const word of words) expect(message).toContain(word)
    expect(message).toContain('--help')
  })

  test('without repeating what may be a password', () => {
    for (const raw of [
      ['postgres://u:hunter2@h/d'],
      ['-url', 'postgres://u:hunter2@h/d'],
      ['--postgres://u:hunter2@h/d'],
      ['serve', 'postgres://u:hunter2@h/d'],
      ['-db', 'x', '-db', 'hunter2'],
    ]) {
      expect(() => read(...raw)).toThrow(OperatorError)
      expect(() => read(...raw)).not.toThrow(/hunter2/)
    }
  })
})
