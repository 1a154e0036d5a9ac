/**
 * What the code of a connection that did not come about means, in words for who runs the server: for the commands
 * (cli/database.ts), and for the log of a server that waits for its database (feed.ts).
 */

/** By SQLSTATE (Postgres, appendix A), or the code of an error of the network, of TLS or of postgres.js. */
const CONNECTION_FAILURES: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOTFOUND: 'there is no such host',
  EAI_AGAIN: 'the name of the host cannot be resolved now',
  EHOSTUNREACH: 'the host cannot be reached',
  ENETUNREACH: 'the host cannot be reached',
  ETIMEDOUT: 'the host does not answer',
  CONNECT_TIMEOUT: 'the host does not answer',
  CONNECTION_CLOSED: 'the connection was closed',
  CONNECTION_TIMEOUT: 'the host does not answer',
  ECONNRESET: 'the connection was closed',
  // Patched in (patches/).
  AUTH_NOT_SUPPORTED:
    'it asks for a way to authenticate that datum-server does not know; let pg_hba.conf ask for scram-sha-256',
  TLS_NOT_SUPPORTED: 'it has no TLS, which sslmode asks for',
  SASL_SIGNATURE_MISMATCH: 'it does not know the password of this role, so it is another server than meant',
  ERR_SSL_WRONG_VERSION_NUMBER: 'its TLS is none that datum-server speaks',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another host',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is not one that this machine trusts',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is not one that this machine trusts',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is not one that this machine trusts',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'its certificate is not one that this machine trusts',
  '08P01': 'what answers there is no Postgres, or a pooler that has none behind it',
  '26000': 'what stands between keeps no prepared statements; add ?prepare=false to the URL',
  '28P01': 'the password is wrong, or there is no such role',
  '28000': 'this role may not connect',
  '3D000': 'there is no such database',
  '53300': 'it has no connections left, or none for this role',
  '57P03': 'it is starting up or shutting down',
}

/** Null: the code is not about connecting. */
export function connectionFailure(code: string): string | null {
  return Object.hasOwn(CONNECTION_FAILURES, code) ? CONNECTION_FAILURES[code]! : null
}
