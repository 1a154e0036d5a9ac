/** What the owner of a served table could do with the functions that run as the installer, who is often a superuser. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { install } from '../../src/db/install.ts'
import { backendKind } from '../support/backend.ts'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'

/** The embedded Postgres is one session: whatever runs there holds up everything, as docs/ARCHITECTURE.md says. */
const onServer = test.skipIf((await backendKind()) === 'embedded')

setDefaultTimeout(TEST_TIMEOUT_MS)

onServer('the trigger runs no code of the owner of the table as the installer', async () => {
  await using world = await createWorld()
  await world.admin.unsafe(
    `drop role if exists table_owner; create role table_owner; grant create, usage on schema public to table_owner; alter table features owner to table_owner`,
  )
  // As it is after `setup`: the function belongs to whoever owned the table then.
  await install(world.admin, { tables: world.config.tables, role: 'datum_app' })
  try {
    await world.admin
      .begin(async (owner) => {
        await owner.unsafe(`set local role table_owner`)
        await owner.unsafe(`
        alter table features disable row level security;
        create type evil as (v text);
        create function evil_text(e evil) returns text language plpgsql as
          $$ begin execute 'alter role table_owner createrole'; return 'x'; end $$;
        create cast (evil as text) with function evil_text(evil) as implicit;
        alter table features drop constraint features_pkey;
        alter table features alter column id drop default, alter column id type evil using row('x')::evil;
        insert into features (id, org_id) values (row('y')::evil, 'a')`)
      })
      .catch((error: Error) => console.error(error.message))
    const [role] = await world.admin`select rolcreaterole from pg_roles where rolname = 'table_owner'`
    expect(role?.rolcreaterole).toBe(false)
  } finally {
    await world.admin.unsafe(`drop owned by table_owner cascade; drop role table_owner`)
  }
})
