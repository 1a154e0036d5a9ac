/**
 * The `auth:` of datum.yaml, with the secret from the environment or the PEM from its file. Whether the key is a good
 * one is for `auth/keys.ts` to say.
 */
import { resolve } from 'node:path'
import type { AuthConfig } from './config.ts'
import type { Problem } from './problem.ts'
import { authSchema } from './schema.ts'
import { FileTooLarge, readSmallFile, SMALL_FILE_BYTES_MAX } from './small-file.ts'
import type { YamlFile } from './yaml-file.ts'

interface AuthOutcome {
  /** Null if nothing is asked of anybody, or if there are problems. */
  readonly auth: AuthConfig | null
  readonly problems: readonly Problem[]
  readonly warnings: readonly string[]
}

/**
 * Reads the section. `folder` is the config file's; `secret` is JWT_SECRET, null if it is not set.
 */
export async function readAuthSection(
  file: YamlFile | null,
  folder: string,
  secret: string | null,
): Promise<AuthOutcome> {
  const section = file?.content.auth
  if (file === null || section === undefined)
    return { auth: null, problems: [], warnings: withoutAuth(secret) }

  // Each key by itself, so that a wrong one does not hide what is wrong with the others.
  const fields = (typeof section === 'object' ? section : null) as Record<string, unknown> | null
  const { shape } = authSchema
  const algorithm = shape.jwt_algorithm.safeParse(fields?.jwt_algorithm).data
  const publicKey = shape.jwt_public_key.safeParse(fields?.jwt_public_key).data
  if (algorithm === undefined) return { auth: null, problems: [], warnings: [] }

  const problems: Problem[] = []
  const problemAt = (key: string, message: string) =>
    problems.push({ where: file.where(['auth', key]), message })

  let key: AuthConfig['key'] | null = null
  if (algorithm.startsWith('HS')) {
    if (secret === null) {
      problemAt(
        'jwt_algorithm',
        `${algorithm} verifies tokens with a shared secret: set the environment variable JWT_SECRET to it.`,
      )
    } else {
      key = { kind: 'secret', secret: new TextEncoder().encode(secret) }
    }
    if (fields?.jwt_public_key !== undefined) {
      problemAt(
        'jwt_public_key',
        `"auth.jwt_public_key" is for RS and ES algorithms; ${algorithm} takes its secret from JWT_SECRET. Take the ` +
          'key out, or name the algorithm that fits it.',
      )
    }
  } else if (fields?.jwt_public_key === undefined) {
    problemAt(
      'jwt_algorithm',
      `${algorithm} verifies tokens with a public key: name its PEM file in "auth.jwt_public_key".`,
    )
  } else if (publicKey !== undefined) {
    const path = resolve(folder, publicKey)
    try {
      key = { kind: 'pem', pem: new TextDecoder().decode(await readSmallFile(path)), path }
    } catch (error) {
      problemAt('jwt_public_key', `"auth.jwt_public_key": ${whyUnreadable(error)} (${path})`)
    }
  }

  const parsed = authSchema.safeParse(section).data
  if (parsed === undefined || key === null) return { auth: null, problems, warnings: [] }
  const auth: AuthConfig = {
    algorithm,
    key,
    issuers: parsed.jwt_issuer ?? null,
    audiences: parsed.jwt_audience ?? null,
    clockToleranceSeconds: parsed.clock_tolerance ?? 0,
    enforceExpiry: parsed.enforce_expiry ?? false,
  }
  const unused =
    key.kind === 'pem' && secret !== null
      ? [`JWT_SECRET is set but not used: ${algorithm} verifies with the public key.`]
      : []
  return { auth, problems, warnings: unused }
}

/** Somebody who sets a secret wants tokens to be asked for. */
function withoutAuth(secret: string | null): readonly string[] {
  if (secret === null) return []
  return [
    'JWT_SECRET is set, but there is no "auth:" in the configuration, so no token is asked for and everybody is let ' +
      'in. Add "auth:" with "jwt_algorithm", or unset JWT_SECRET.',
  ]
}

/** What to say of a file that could not be read. */
export function whyUnreadable(error: unknown): string {
  if (error instanceof FileTooLarge) return `the file is larger than ${SMALL_FILE_BYTES_MAX} bytes`
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ENOENT') return 'there is no such file'
  if (code === 'EACCES' || code === 'EPERM') return 'this user may not read the file'
  if (code === 'EISDIR') return 'this is a folder, not a file'
  return `the file cannot be read${code === undefined ? '' : ` (${code})`}`
}
