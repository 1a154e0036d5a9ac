/**
 * Whose connection it is, for limits per address. Behind proxies that the configuration trusts it is the last hop that
 * they saw and do not trust; from anybody else X-Forwarded-For is just something a client says, and is not looked at.
 */
import { isIP } from 'node:net'
import { addressesWithin } from '../config/address-range.ts'

/** From the peer's address and the X-Forwarded-For header (null: none) to what limits are counted by. */
type ClientAddress = (peer: string, forwardedFor: string | null) => string

/** `trusted`: addresses and CIDR ranges, as config/address-range.ts takes them. */
export function clientAddressBehind(trusted: readonly string[]): ClientAddress {
  if (trusted.length === 0) return (peer) => countedAs(addressOf(peer) ?? peer)
  const isTrusted = addressesWithin(trusted)
  return (peer, forwardedFor) => {
    let address = addressOf(peer)
    if (address === null) return peer
    // Each proxy appends the address it was called from, so the list is read from its end.
    const hops = forwardedFor?.split(',') ?? []
    while (isTrusted(address)) {
      const before: string | null = addressOf(hops.pop() ?? '')
      if (before === null) break
      address = before
    }
    return countedAs(address)
  }
}

/**
 * An address as one spelling has it, or null for what is none. Some proxies add the port they were called from
 * (`192.0.2.1:443`, `[2001:db8::1]:443`), a link-local address has a zone, and an IPv4 address may have come in over an
 * IPv6 socket (RFC 4291 §2.5.5.2).
 */
function addressOf(hop: string): string | null {
  const bare = hop
    .trim()
    .replace(/^\[([^\]]*)\](?::\d+)?$/, '$1')
    .replace(/^([\d.]+):\d+$/, '$1')
    .replace(/%.*$/, '')
  if (isIP(bare) !== 6) return isIP(bare) === 4 ? bare : null
  const groups = groupsOf(bare)
  const isMapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff
  if (!isMapped) return groups.map((group) => group.toString(16)).join(':')
  return groups
    .slice(6)
    .flatMap((group) => [group >> 8, group & 255])
    .join('.')
}

/**
 * What an address counts as: itself, or of an IPv6 address the network of 64 bits, which one household or machine has
 * all to itself (RFC 6177): by address it would have as many tries as it likes.
 */
function countedAs(address: string): string {
  return isIP(address) === 6 ? `${address.split(':').slice(0, 4).join(':')}::/64` : address
}

/** The eight numbers of an IPv6 address in any of its spellings (RFC 4291 §2.2). */
function groupsOf(address: string): number[] {
  const [first = [], last = []] = address.split('::').map(numbersOf)
  return [...first, ...new Array<number>(8 - first.length - last.length).fill(0), ...last]
}

/** Groups of hexadecimal digits; the last may be an IPv4 address, which is two of them. */
function numbersOf(text: string): number[] {
  if (text === '') return []
  return text.split(':').flatMap((group) => {
    if (!group.includes('.')) return Number.parseInt(group, 16)
    const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number)
    return [(a << 8) | b, (c << 8) | d]
  })
}
