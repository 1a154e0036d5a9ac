/** A database URL as it may be shown: in the log, in an error, in the words of a command. */

/** Replaces the password, wherever a Postgres URL may carry one. Text that is no proper URL loses all up to its host. */
export function redactUrl(url: string): string {
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch {
    return redactText(url)
  }
  // An unescaped / ? or # in a password ends the host early, and the rest of the password lands behind it.
  if (/@/.test(parsed.pathname + parsed.search + parsed.hash)) return redactText(url)
  if (parsed.password !== '') parsed.password = '***'
  for (const name of [...parsed.searchParams.keys()]) {
    if (/pass|secret/i.test(name)) parsed.searchParams.set(name, '***')
  }
  return parsed.href
}

function redactText(url: string): string {
  const scheme = /^[a-z]+:\/\//i.exec(url)?.[0] ?? ''
  const host = url.slice(Math.max(scheme.length, url.lastIndexOf('@') + 1)).replace(/[?#].*$/s, '')
  return scheme === '' ? '***' : `${scheme}${url.includes('@') ? '***@' : ''}${host}`
}
