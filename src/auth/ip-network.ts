/** Addresses and networks as pg_hba.conf writes them: IPv4 and IPv6, with a prefix length or a mask. */

/** 4 or 16 bytes. */
export type IpAddress = Uint8Array;

export interface IpNetwork {
  readonly address: IpAddress;
  readonly prefixBits: number;
}

/** Undefined: it is none. An IPv4 address in IPv6 (::ffff:10.0.0.1), as sockets tell it, is the IPv4 address. */
export function parseAddress(text: string): IpAddress | undefined {
  const bytes = text.includes(':') ? parseIpv6(text) : parseIpv4(text);
  const isMapped = bytes?.length === 16 && bytes.every((byte, i) => i > 11 || byte === (i < 10 ? 0 : 255));
  return isMapped ? bytes.subarray(12) : bytes;
}

export function isLoopback(address: IpAddress): boolean {
  if (address.length === 4) return address[0] === 127;
  return address.every((byte, i) => byte === (i === 15 ? 1 : 0));
}

/** `10.0.0.0/8`; undefined: it is none, as without a prefix length. */
export function parseNetwork(text: string): IpNetwork | undefined {
  const slash = text.indexOf('/');
  const written = slash < 0 ? '' : text.slice(0, slash);
  const address = parseAddress(written);
  const bits = text.slice(slash + 1);
  if (!address || !/^\d{1,3}$/.test(bits)) return undefined;
  // Of ::ffff:10.0.0.0/104 the last 8 count; a shorter one would be of addresses of both families.
  const prefixBits = Number(bits) - (address.length === 4 && written.includes(':') ? 96 : 0);
  return prefixBits < 0 || prefixBits > address.length * 8 ? undefined : { address, prefixBits };
}

/** Undefined: the mask is not of the same family, or has holes. */
export function networkOfMask(address: IpAddress, mask: IpAddress): IpNetwork | undefined {
  if (mask.length !== address.length) return undefined;
  const bits = [...mask].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  const prefixBits = bits.indexOf('0') < 0 ? bits.length : bits.indexOf('0');
  return bits.includes('1', prefixBits) ? undefined : { address, prefixBits };
}

export function contains({ address, prefixBits }: IpNetwork, candidate: IpAddress): boolean {
  if (candidate.length !== address.length) return false;
  const whole = prefixBits >> 3;
  for (let i = 0; i < whole; i++) if (candidate[i] !== address[i]) return false;
  const rest = prefixBits & 7;
  return rest === 0 || (candidate[whole]! ^ address[whole]!) >> (8 - rest) === 0;
}

function parseIpv4(text: string): IpAddress | undefined {
  const parts = text.split('.');
  const isWhole = parts.length === 4 && parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part));
  if (!isWhole || parts.some((part) => Number(part) > 255)) return undefined;
  return Uint8Array.from(parts, Number);
}

/** At most one `::`, groups of up to four hexadecimal digits, the last two perhaps as IPv4; no zone. */
function parseIpv6(text: string): IpAddress | undefined {
  const lastColon = text.lastIndexOf(':');
  const tail = text.slice(lastColon + 1);
  let groups = text;
  if (tail.includes('.')) {
    const v4 = parseIpv4(tail);
    if (!v4) return undefined;
    const pair = [v4[0]! * 256 + v4[1]!, v4[2]! * 256 + v4[3]!].map((group) => group.toString(16));
    groups = `${text.slice(0, lastColon + 1)}${pair.join(':')}`;
  }
  const halves = groups.split('::');
  if (halves.length > 2) return undefined;
  const [before = [], after = []] = halves.map((half) => (half === '' ? [] : half.split(':')));
  const missing = 8 - before.length - after.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const all = [...before, ...Array<string>(missing).fill('0'), ...after];
  if (!all.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined;
  return Uint8Array.from(
    all.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]),
  );
}
