/** A row of the demo's table as the page uses it. */
import type { Row } from '../../client/index.ts'
import { type Identity, ORGANISATIONS } from '../identities.ts'

export interface Place {
  readonly id: string
  readonly name: string
  /** ISO 3166-1 alpha-2; null for places that people added. */
  readonly country: string | null
  readonly population: number | null
  readonly isPublic: boolean
  readonly orgId: string
  readonly longitude: number
  readonly latitude: number
}

export function toPlace(row: Row): Place {
  const geom = row.geom as { coordinates: readonly [number, number] }
  return {
    id: String(row.id),
    name: String(row.name),
    country: row.country === null ? null : String(row.country),
    population: row.population === null ? null : Number(row.population),
    isPublic: row.is_public === true,
    orgId: String(row.org_id),
    longitude: geom.coordinates[0],
    latitude: geom.coordinates[1],
  }
}

/** The geometry column's value for a position, within the ranges of WGS 84. */
export function toPoint(longitude: number, latitude: number) {
  const round = (degrees: number, max: number) =>
    Math.round(Math.max(-max, Math.min(max, degrees)) * 1e5) / 1e5
  return { type: 'Point', coordinates: [round(longitude, 180), round(latitude, 90)] }
}

/** What the page *expects* the policies to say, for how a place is drawn. It stops nobody: the server decides. */
export function seemsEditable(place: Place, identity: Identity): boolean {
  return identity.role === 'editor' && identity.orgId === place.orgId
}

export function colorOf(orgId: string | null): string {
  return ORGANISATIONS.find((one) => one.id === orgId)?.color ?? '#5d6b7a'
}

export function organisationName(orgId: string): string {
  return ORGANISATIONS.find((one) => one.id === orgId)?.name ?? orgId
}
