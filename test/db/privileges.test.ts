/** What the server's role could do with the functions that run as the installer. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import postgres from 'postgres'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

test('datum.candidates runs no code of the caller as the installer', async () => {
  await using world = await createWorld()
  if (world.appUrl === null) return
  const app = postgres(world.appUrl, { max: 1, onnotice: () => {} })
  try {
    await app.unsafe(`create function pg_temp.evil() returns geometry language plpgsql volatile as
      $$ begin execute 'alter role datum_app bypassrls'; return 'SRID=4326;POINT(1 1)'::public.geometry; end $$;
      create temp view v as select '(0,1)'::tid as ctid, pg_temp.evil() as geom`)
    await app
      .unsafe(`select datum.candidates('pg_temp.v', 'geom', array[st_makeenvelope(0,0,2,2,4326)])`)
      .catch(() => {})
    const [role] = await world.admin`select rolbypassrls from pg_roles where rolname = 'datum_app'`
    expect(role?.rolbypassrls).toBe(false)
  } finally {
    await app.end()
    await world.admin`alter role datum_app nobypassrls`
  }
})

test('datum.candidates tells nothing of tables that are not served', async () => {
  await using world = await createWorld({
    before: `create table secret_places (geom geometry(Point, 4326)); insert into secret_places values ('SRID=4326;POINT(1 1)')`,
  })
  if (world.appUrl === null) return
  const app = postgres(world.appUrl, { max: 1, onnotice: () => {} })
  try {
    const answer = await app
      .unsafe(
        `select datum.candidates('secret_places', 'geom', array[st_makeenvelope(0,0,2,2,4326)])::text as c`,
      )
      .catch(() => [])
    expect(answer[0]?.c ?? '{}').toBe('{}')
  } finally {
    await app.end()
  }
})
