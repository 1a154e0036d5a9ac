/**
 * The demo in a real browser: what each identity sees, edits that a second window follows, edits that are refused.
 * Runs the demo in this process, or looks at the one at `DATUM_DEMO_URL` (a compiled binary's, say). Screenshots go
 * to a temporary folder, whose path is printed.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Browser, chromium, type Page } from 'playwright-core'
import { runDemo } from '../../demo/run.ts'
import { createLog } from '../../src/observe/log.ts'

const CHROMIUM =
  process.env.CHROMIUM ??
  ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)
if (CHROMIUM === undefined)
  process.stderr.write('test/browser is skipped: no Chromium here. CHROMIUM may name one.\n')

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

const TEST_TIMEOUT_MS = 90_000

/** Over the Alps: Heron's land, with room for a new place. */
const ALPS = '#7/46.5/9'

describe.skipIf(CHROMIUM === undefined)('the demo in a browser', () => {
  let browser: Browser
  let url: string
  let stopDemo = async () => {}
  let screenshots: string
  const troubles: string[] = []

  beforeAll(async () => {
    screenshots = await mkdtemp(join(tmpdir(), 'datum-browser-'))
    process.stderr.write(`screenshots are in ${screenshots}\n`)
    const given = process.env.DATUM_DEMO_URL
    if (given === undefined) {
      const demo = await runDemo({ port: 0, log: createLog('error') })
      url = demo.url
      stopDemo = demo.stop
    } else {
      url = given
    }
    browser = await chromium.launch({ executablePath: CHROMIUM!, args: FLAGS })
  }, TEST_TIMEOUT_MS)

  afterAll(async () => {
    await browser?.close()
    await stopDemo()
  }, TEST_TIMEOUT_MS)

  /** A window as somebody, connected and with its first view drawn. */
  async function open(as: string, hash = ''): Promise<Page> {
    const page = await browser.newPage({ viewport: { width: 1280, height: 800 } })
    page.on('pageerror', (error) => troubles.push(`${as}: ${error.message}`))
    page.on('console', (message) => {
      if (message.type() === 'error') troubles.push(`${as}: ${message.text()}`)
    })
    await page.goto(`${url}/?as=${as}${hash}`)
    await page.waitForSelector('#status[data-status=connected]')
    await page.waitForFunction(() => document.querySelector('#count')!.textContent !== '–')
    return page
  }

  async function screenshot(page: Page, name: string): Promise<void> {
    await page.screenshot({ path: join(screenshots, `${name}.png`) })
  }

  /** The names that the page's search finds among the places in view. */
  async function search(page: Page, text: string): Promise<string[]> {
    await page.fill('#query', text)
    const names = await page.$$eval('#found button', (buttons) =>
      buttons.map((button) => button.firstChild!.textContent!),
    )
    await page.fill('#query', '')
    return names
  }

  async function untilFound(page: Page, name: string, isThere: boolean): Promise<void> {
    for (;;) {
      if ((await search(page, name)).includes(name) === isThere) return
      await page.waitForTimeout(100)
    }
  }

  /** Adds a place at a point of the window, whose form is open then. */
  async function addUnnamed(page: Page, x: number, y: number): Promise<void> {
    await page.click('#add')
    await page.mouse.click(x, y)
    await page.waitForSelector('#editor:not([hidden])')
  }

  /** Gives the place whose form is open its name, and closes the form once that is written. */
  async function rename(page: Page, name: string): Promise<void> {
    await page.fill('#name', name)
    await page.press('#name', 'Enter')
    await page.waitForFunction(() => document.querySelector('#pending')!.textContent === '0')
    await page.click('#close')
  }

  async function addPlace(page: Page, name: string, x: number, y: number): Promise<void> {
    await addUnnamed(page, x, y)
    await rename(page, name)
  }

  async function untilTold(page: Page, news: string): Promise<void> {
    await page.waitForFunction((text) => document.querySelector('#feed')!.textContent!.includes(text), news)
  }

  /** The name in the form that a click on this point opens. */
  async function clickPlace(page: Page, x: number, y: number): Promise<string> {
    await page.mouse.click(x, y)
    await page.waitForSelector('#editor:not([hidden])')
    return await page.inputValue('#name')
  }

  test(
    'shows each identity what its claims allow',
    async () => {
      const world = '#2.5/20/10'
      const [alice, bob, guest] = await Promise.all([
        open('alice', world),
        open('bob', world),
        open('guest', world),
      ])
      // Houston is Condor's alone, Lyon is Heron's alone, Rome is a capital and public.
      expect(await search(alice, 'Houston')).toEqual(['Houston'])
      expect(await search(bob, 'Houston')).toEqual([])
      expect(await search(bob, 'Lyon')).toContain('Lyon')
      expect(await search(alice, 'Lyon')).toEqual([])
      for (const page of [alice, bob, guest]) expect(await search(page, 'Rome')).toContain('Rome')
      expect(await search(guest, 'Lyon')).toEqual([])
      await Promise.all([screenshot(alice, 'alice'), screenshot(bob, 'bob'), screenshot(guest, 'guest')])

      // Another identity in the same window: nothing of the first one's stays.
      await bob.click('#identities label:has([value=alice])')
      await untilFound(bob, 'Houston', true)
      expect(await search(bob, 'Lyon')).toEqual([])
      await Promise.all([alice.close(), bob.close(), guest.close()])
    },
    TEST_TIMEOUT_MS,
  )

  test(
    'lets another window follow what is added, moved, renamed and deleted',
    async () => {
      const [bob, vera] = await Promise.all([open('bob', ALPS), open('vera', ALPS)])
      // Two changes in a row may reach another window as one, so the name waits for the place.
      await addUnnamed(bob, 700, 620)
      await untilTold(vera, 'New place appeared')
      await rename(bob, 'Test hut')
      await untilTold(vera, 'New place is now Test hut')
      await untilFound(vera, 'Test hut', true)

      await bob.mouse.move(700, 620)
      await bob.mouse.down()
      await bob.mouse.move(760, 600, { steps: 8 })
      await bob.mouse.move(820, 690, { steps: 8 })
      await screenshot(bob, 'bob-drags')
      await bob.mouse.up()
      await untilTold(vera, 'Test hut moved')
      expect(await clickPlace(vera, 820, 690)).toBe('Test hut')
      await screenshot(vera, 'vera-follows')

      expect(await clickPlace(bob, 820, 690)).toBe('Test hut')
      await bob.click('#delete')
      await untilFound(vera, 'Test hut', false)
      await vera.waitForSelector('#editor[hidden]', { state: 'attached' })
      await Promise.all([bob.close(), vera.close()])
    },
    TEST_TIMEOUT_MS,
  )

  test(
    'undoes what the policies refuse, and says so',
    async () => {
      const [bob, vera] = await Promise.all([open('bob', ALPS), open('vera', ALPS)])
      await addPlace(bob, 'Refuge', 700, 620)
      await untilFound(vera, 'Refuge', true)

      expect(await clickPlace(vera, 700, 620)).toBe('Refuge')
      await vera.click('#delete')
      await vera.waitForSelector('#notices p')
      expect(await vera.textContent('#notices')).toContain('Deleting Refuge was undone')
      await screenshot(vera, 'vera-is-refused')
      await untilFound(vera, 'Refuge', true)

      await vera.click('#add')
      await vera.mouse.click(640, 700)
      await vera.waitForFunction(() =>
        document.querySelector('#notices')!.textContent!.includes('Adding a place was undone'),
      )
      expect(await search(vera, 'New place')).toEqual([])
      expect(await search(bob, 'Refuge')).toEqual(['Refuge'])
      await Promise.all([bob.close(), vera.close()])
    },
    TEST_TIMEOUT_MS,
  )

  test(
    'shows a place to another organisation while it is public, and no longer',
    async () => {
      const [bob, alice] = await Promise.all([open('bob', ALPS), open('alice', ALPS)])
      await addPlace(bob, 'Open house', 900, 650)
      expect(await search(alice, 'Open house')).toEqual([])
      expect(await clickPlace(bob, 900, 650)).toBe('Open house')
      await bob.check('#public')
      await untilFound(alice, 'Open house', true)
      await screenshot(alice, 'alice-sees-the-open-house')
      await bob.uncheck('#public')
      await untilFound(alice, 'Open house', false)
      await Promise.all([bob.close(), alice.close()])
    },
    TEST_TIMEOUT_MS,
  )

  test(
    'can be worked with the keyboard alone',
    async () => {
      const bob = await open('bob', ALPS)
      await bob.focus('#add')
      await bob.keyboard.press('Enter')
      await bob.keyboard.press('Enter')
      await bob.waitForSelector('#editor:not([hidden])')
      await bob.keyboard.type('By hand')
      await bob.keyboard.press('Enter')
      await untilFound(bob, 'By hand', true)
      await bob.fill('#query', 'By hand')
      await bob.press('#query', 'Enter')
      const before = await bob.locator('.handle').boundingBox()
      await bob.keyboard.press('Shift+ArrowRight')
      await bob.waitForFunction(() => document.querySelector('#pending')!.textContent === '0')
      const after = await bob.locator('.handle').boundingBox()
      expect(Math.round(after!.x - before!.x)).toBe(24)
      await bob.keyboard.press('Delete')
      await untilFound(bob, 'By hand', false)
      await bob.close()
    },
    TEST_TIMEOUT_MS,
  )

  test('runs without an error in any of the windows', () => {
    expect(troubles).toEqual([])
  })
})
