import { expect, test } from 'bun:test'
import { redactUrl } from '../../src/config/redact-url.ts'

test.each([
  ['postgres://u:hunter2@h:5432/d', 'postgres://u:***@h:5432/d'],
  ['postgres://u@h/d', 'postgres://u@h/d'],
  ['postgres://h/d', 'postgres://h/d'],
  ['postgres://u:hunter2@a:1,b:2/d', 'postgres://***@a:1,b:2/d'],
  ['postgres://u:hun/ter2@h/d', 'postgres://***@h/d'],
  ['postgres://u:1/hunter2@h/d', 'postgres://***@h/d'],
  ['postgres://u:#hunter2@h/d', 'postgres://***@h/d'],
  ['postgres://u:hunter@2@h/d', 'postgres://u:***@h/d'],
  ['postgres://u:100%hunter2@h/d', 'postgres://u:***@h/d'],
  ['postgres://h/d?password=hunter2&sslmode=require', 'postgres://h/d?password=***&sslmode=require'],
  ['hunter2', '***'],
])('%s', (url, shown) => {
  expect(redactUrl(url)).toBe(shown)
  expect(redactUrl(url)).not.toContain('hunter')
})
