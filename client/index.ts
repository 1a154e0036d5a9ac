/** The package's entry for browsers, Bun and Node: `import { DatumClient } from 'datum-server/client'`. */
export type { Bbox, Id, Json, Row } from '../src/wire/messages.ts'
export type { ConnectOptions } from './connect-options.ts'
export { type Change, DatumClient, type Unsubscribe } from './datum-client.ts'
export { DatumError, type DatumErrorCode } from './datum-error.ts'
export type { WebSocketConstructor, WebSocketLike } from './environment.ts'
export type { Feature, FeatureCollection, Geometry, Position } from './geojson.ts'
export type { ConnectionStatus } from './status.ts'
export type { Token } from './token-source.ts'
