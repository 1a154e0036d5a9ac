/** What a principal's class in a table costs. Invariant 9. */
import { expect, test } from 'bun:test'
import { principalFromPayload } from '../../src/auth/claims.ts'
import { PAYLOAD_SETTING } from '../../src/auth/principal.ts'
import type { Table } from '../../src/db/catalog.ts'
import { classOf } from '../../src/sync/principal-class.ts'

const tableReading = (key: string) =>
  ({
    policyReads: { settings: new Set(), reading: { settings: new Set(), payloadKeys: new Set([key]) } },
  }) as unknown as Table

test('I9: a payload is taken apart once for all views of a table that one token has', () => {
  const principal = principalFromPayload('{"sub":"alice","org_id":"a","exp":9999999999}')
  const table = tableReading('org_id')
  const first = classOf(principal, table)
  expect(classOf(principal, table)).toBe(first)
  expect(first.settings[PAYLOAD_SETTING]).toBe('{"org_id":"a"}')
})

test('I2: another table, and another token, have classes of their own', () => {
  const principal = principalFromPayload('{"sub":"alice","org_id":"a","exp":9999999999}')
  const other = principalFromPayload('{"sub":"alice","org_id":"b","exp":9999999999}')
  const table = tableReading('org_id')
  const { key } = classOf(principal, table)
  expect(classOf(other, table).key).not.toBe(key)
  expect(classOf(principal, tableReading('sub')).settings[PAYLOAD_SETTING]).toBe('{"sub":"alice"}')
})
