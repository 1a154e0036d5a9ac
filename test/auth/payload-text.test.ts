/** The payload cut down to some of its members, which stands for the whole where only these are read. Invariant 2. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { projectPayload, readPayload } from '../../src/auth/payload-text.ts'

const project = (text: string, ...names: string[]) => projectPayload(text, new Set(names))

describe('a payload of some members', () => {
  test('I2: has the values letter by letter, white space and digits too', () => {
    const text = ' { "a" : [1,  2.50] , "b":{ "c" : "\\u0061" },"d": 1e5 } '
    expect(project(text, 'd', 'a', 'b')).toBe('{"a":[1,  2.50],"b":{ "c" : "\\u0061" },"d":1e5}')
  })

  test('I2: is the same for payloads that agree in them, whatever else is there and in whichever order', () => {
    expect(project('{"a":1,"b":2,"exp":3}', 'b', 'a')).toBe(project('{"iat":9,"b":2,"a":1}', 'a', 'b'))
    expect(project('{"a":1}', 'a')).not.toBe(project('{"a":"1"}', 'a'))
    expect(project('{"a":null}', 'a')).not.toBe(project('{}', 'a'))
  })

  test('knows names by their value, in their own case, and only at the top', () => {
    expect(project('{"\\u0061":1,"A":2,"x":{"a":3}}', 'a')).toBe('{"a":1}')
    expect(project('{"a b\\"c":1}', 'a b"c')).toBe('{"a b\\"c":1}')
    expect(project('{"__proto__":1}', '__proto__')).toBe('{"__proto__":1}')
    expect(project('{}', 'a')).toBe('{}')
  })

  test('I2: is none where another member’s number may be an error to Postgres', () => {
    for (const number of ['1e1000', '1E+999999', '-1e-4000', '1e00001234'])
      expect(project(`{"a":1,"n":[{"m":${number}}]}`, 'a')).toBeNull()
    for (const number of ['1e999', '1e-7', '1234567890', '1e0005'])
      expect(project(`{"a":1,"n":${number}}`, 'a')).toBe('{"a":1}')
  })

  test('any payload: what is kept parses to what JSON.parse finds in the whole', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.array(fc.string()), (claims, others) => {
        const text = JSON.stringify(claims, null, 1)
        if (!text.isWellFormed() || /\\u0000|\\ud|e[-+]\d{3}/.test(text)) return
        const names = [...Object.keys(claims).slice(0, 2), ...others]
        const kept = project(text, ...names)
        const wanted = Object.fromEntries(Object.entries(claims).filter(([name]) => names.includes(name)))
        expect(JSON.parse(kept ?? 'null')).toEqual(JSON.parse(JSON.stringify(wanted)))
        expect(readPayload(text).every(({ raw }) => text.includes(raw))).toBe(true)
      }),
    )
  })
})
