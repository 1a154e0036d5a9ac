/**
 * Whose connection it is, for limits per address. Behind proxies that the configuration trusts it is the last hop that
 * they saw and do not trust; from anybody else X-Forwarded-For is just something a client says, and is not looked at.
 */
import { BlockList, isIP } from 'node:net'

/** From the peer's address and the X-Forwarded-For header (null: none) to the address that limits are counted by. */
export type ClientAddress = (peer: string, forwardedFor: string | null) => string

/** `trusted`: addresses and CIDR ranges, as {@link isAddressRange} takes them. */
export function clientAddressBehind(trusted: readonly string[]): ClientAddress {
  if (trusted.length === 0) return (peer) => unmapped(peer)
  const list = new BlockList()
  for (const range of trusted) {
    const [address = '', bits] = range.split('/')
    if (bits === undefined) list.addAddress(address, familyOf(address))
    else list.addSubnet(address, Number(bits), familyOf(address))
  }
  const isTrusted = (address: string) => isIP(address) !== 0 && list.check(address, familyOf(address))
  return (peer, forwardedFor) => {
    // Each proxy appends the address it was called from, so the list is read from its end.
    const hops = [...(forwardedFor?.split(',') ?? []), peer].map((hop) => unmapped(hop.trim()))
    let address = hops.pop() ?? peer
    while (isTrusted(address)) {
      const before = hops.pop()
      if (before === undefined || isIP(before) === 0) break
      address = before
    }
    return address
  }
}

/** Whether a text is an IP address, or a range of them like `10.0.0.0/8`. */
export function isAddressRange(text: string): boolean {
  const [address = '', bits, ...rest] = text.split('/')
  const version = isIP(address)
  if (version === 0 || rest.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128))
}

/** An IPv4 address that came in over an IPv6 socket, as IPv4 (RFC 4291 §2.5.5.2). */
function unmapped(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '')
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIP(address) === 6 ? 'ipv6' : 'ipv4'
}
