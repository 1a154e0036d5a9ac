/**
 * Who one can be in the demo: the people, their organisations, and the claims that their tokens carry. Read by the
 * demo's token endpoint and by its page; `schema.sql` says what the claims allow.
 */

interface Organisation {
  readonly id: string
  readonly name: string
  readonly area: string
  /** For dots and labels, on a light map. */
  readonly color: string
}

export interface Identity {
  /** The token's `sub`, and the page's `?as=`. */
  readonly id: string
  readonly name: string
  /** The token's `org_id`; null: the token has none. */
  readonly orgId: string | null
  /** The token's `role`. */
  readonly role: 'editor' | 'viewer'
  readonly summary: string
}

export const ORGANISATIONS: readonly Organisation[] = [
  { id: 'condor', name: 'Condor', area: 'the Americas', color: '#d9480f' },
  { id: 'heron', name: 'Heron', area: 'Europe and Africa', color: '#1c6fd1' },
  { id: 'crane', name: 'Crane', area: 'Asia and Oceania', color: '#0b8a6b' },
]

export const IDENTITIES: readonly Identity[] = [
  { id: 'alice', name: 'Alice', orgId: 'condor', role: 'editor', summary: 'Condor, editor' },
  { id: 'bob', name: 'Bob', orgId: 'heron', role: 'editor', summary: 'Heron, editor' },
  { id: 'mei', name: 'Mei', orgId: 'crane', role: 'editor', summary: 'Crane, editor' },
  { id: 'vera', name: 'Vera', orgId: 'heron', role: 'viewer', summary: 'Heron, may only look' },
  { id: 'guest', name: 'Guest', orgId: null, role: 'viewer', summary: 'no organisation' },
]
