/** `setup` is run by a superuser, among tables and functions of people who are none. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { install } from '../../src/db/install.ts'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

test('setup runs no function or operator that a schema in the search_path has put before a built-in one', async () => {
  await using world = await createWorld()
  const owner = `planter_${process.pid}`
  await world.admin.unsafe(`
    do $$ begin create role ${owner} nologin; exception when duplicate_object then null; end $$;
    grant create, usage on schema public to ${owner};
    set role ${owner};
    drop table if exists public.planted;
    create table public.planted (who text);
    grant insert on public.planted to public;
    create function public.planted_it() returns boolean language plpgsql volatile as
      $$ begin insert into public.planted values (current_user); return true; end $$;
    -- Better matches than the built-in ones, which take text.
    create function public.starts_with(a name, b text) returns boolean language sql return public.planted_it();
    create function public.starts_with(a name, b name) returns boolean language sql return public.planted_it();
    create function public.is_planted(a name, b text) returns boolean language sql return public.planted_it();
    create operator public.= (leftarg = name, rightarg = text, function = public.is_planted);
    create function public.is_planted(a name, b varchar) returns boolean language sql return public.planted_it();
    create operator public.= (leftarg = name, rightarg = varchar, function = public.is_planted);
    reset role`)
  try {
    await install(world.admin, { tables: world.config.tables, role: 'datum_app' })
    const planted = await world.admin`select distinct who from public.planted`
    expect([...planted]).toEqual([])
  } finally {
    await world.admin.unsafe(`reset role; drop owned by ${owner} cascade; drop role ${owner}`)
  }
})
