/** Clients in a fake world. */
import type { ConnectOptions } from '../../client/connect-options.ts'
import { type Change, DatumClient } from '../../client/datum-client.ts'
import type { Row, TableInfo } from '../../src/wire/messages.ts'
import { BOX, type FakeWorld, PLACES, settle } from './fake-world.ts'

/** Starts to connect; the test speaks for the server. */
export async function connecting(
  world: FakeWorld,
  options: Partial<ConnectOptions> = {},
): Promise<{ client: Promise<DatumClient> }> {
  const client = DatumClient.connectIn(world.environment, {
    serverUrl: 'ws://server.test',
    bbox: BOX,
    ...options,
  })
  client.catch(() => {})
  await settle()
  return { client }
}

/** A client whose first view has these rows. */
export async function connected(
  world: FakeWorld,
  rows: readonly Row[] = [],
  options: Partial<ConnectOptions> = {},
  table: TableInfo = PLACES,
): Promise<DatumClient> {
  const { client } = await connecting(world, options)
  await world.socket.serve(rows, table)
  return client
}

/** All changes from now on. */
export function changesOf(client: DatumClient): Change[] {
  const changes: Change[] = []
  client.onChange((change) => changes.push(change))
  return changes
}
