/** What the server's role, or a table's owner, could do with the functions that run as the installer. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import postgres from 'postgres'
import { createWorld, TEST_TIMEOUT_MS } from '../support/fixture.ts'

setDefaultTimeout(TEST_TIMEOUT_MS)

const AREA = 'array[st_makeenvelope(0, 0, 2, 2, 4326)]'

test('datum.candidates runs no code of the caller as the installer', async () => {
  await using world = await createWorld()
  if (world.appUrl === null) return
  const app = postgres(world.appUrl, { max: 1, onnotice: () => {} })
  try {
    await app.unsafe(`create function pg_temp.evil() returns geometry language plpgsql volatile as
      $$ begin execute 'alter role datum_app bypassrls'; return 'SRID=4326;POINT(1 1)'::public.geometry; end $$;
      create temp view v as select '(0,1)'::tid as ctid, pg_temp.evil() as geom`)
    const asked = app.unsafe(`select datum.candidates('pg_temp.v', ${AREA})`)
    expect(asked).rejects.toThrow('not watched')
    await asked.catch(() => {})
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
    await expect(async () => app.unsafe(`select datum.candidates('secret_places', ${AREA})`)).toThrow(
      'not watched',
    )
  } finally {
    await app.end()
  }
})

test('datum.candidates runs no code of the table’s owner as the installer: a column made of another type', async () => {
  await using world = await createWorld()
  if (world.appUrl === null) return
  await world.put({ at: [1, 1] })
  // An owner who is no superuser, of a table that a superuser has set up.
  await world.admin.unsafe(`
    create role tables_owner_${process.pid} nologin;
    grant create on schema public to tables_owner_${process.pid};
    alter table features owner to tables_owner_${process.pid};
    set role tables_owner_${process.pid};
    create table loot (who text);
    create type shape as (g geometry);
    create function evil(s shape) returns geometry language plpgsql volatile security invoker as
      $$ begin insert into public.loot values (current_user); return s.g; end $$;
    create cast (shape as geometry) with function evil(shape) as implicit;
    alter table features no force row level security;
    alter table features alter geom type shape using row(geom)::shape;
    reset role;
    delete from loot`)
  const app = postgres(world.appUrl, { max: 1, onnotice: () => {} })
  try {
    await app.unsafe(`select datum.candidates('features', ${AREA})`).catch(() => {})
    const [role] = await world.admin`select current_user::text as installer`
    const loot = await world.admin`select who from loot`
    expect(loot.map(({ who }) => who)).not.toContain(role?.installer)
  } finally {
    await app.end()
    await world.admin.unsafe(
      `drop owned by tables_owner_${process.pid} cascade; drop role tables_owner_${process.pid}`,
    )
  }
})

test('datum.candidates runs no code of the table’s owner as a superuser: what the planner evaluates', async () => {
  await using world = await createWorld()
  await world.put({ at: [1, 1] })
  const owner = `planner_of_${process.pid}`
  // Called IMMUTABLE, so that Postgres evaluates it while it plans; what it calls may do anything.
  await world.admin.unsafe(`
    create role ${owner} nologin;
    grant usage, create on schema public to ${owner};
    alter table features owner to ${owner};
    set role ${owner};
    create table loot (place text, who text, superuser boolean);
    grant insert on loot to public;
    create function take(place text) returns integer language plpgsql volatile as $$ begin
      insert into public.loot select place, r.rolname, r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user;
      return 1;
    end $$;
    create function planned(place text, n integer) returns integer language plpgsql immutable as
      $$ begin return public.take(place) + n; end $$;
    create statistics of_nothing on (planned('statistics', 1)) from features;
    create index on features (id) where planned('predicate', 1) > size;
    create index on features ((size + planned('index', 1)));
    delete from loot;
    reset role`)
  try {
    const candidates = `select cardinality(datum.candidates('features', ${AREA})) as found`
    const [row] = await world.openDatabase().sql.unsafe(candidates)
    expect(row?.found).toBe(1)
    const loot = await world.admin`select place, who, superuser from loot order by place`
    // That it runs at all is Postgres's way. As whom is datum's.
    const asIndexRole = { who: 'datum_index', superuser: false }
    expect([...loot]).toEqual(
      ['index', 'predicate', 'statistics'].map((place) => ({ place, ...asIndexRole })),
    )
  } finally {
    await world.admin.unsafe(`drop owned by ${owner} cascade; drop role ${owner}`)
  }
})
