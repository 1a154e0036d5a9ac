/** The flags that several commands share. */

export const configFlag = {
  type: 'string',
  valueHint: 'FILE',
  description: 'The configuration (CONFIG; datum.yaml in the working folder, if there is one)',
} as const

export const dbFlag = {
  type: 'string',
  valueHint: 'URL',
  description: 'The database, as postgres://user:password@host/name (DATABASE_URL)',
} as const

export const portFlag = {
  type: 'string',
  valueHint: 'N',
  description: 'The port to listen on, 0 for any free one (PORT; 8080)',
} as const

export const hostFlag = {
  type: 'string',
  valueHint: 'H',
  description: 'The address to listen on (HOST; 0.0.0.0)',
} as const
