/** A network link's speed as people write it: `1gbps`, `10 Gbit/s`, `100M`. */

/** A capital B is bytes, and refused: nobody should be off by eight. */
const SPEED = /^(\d+(?:\.\d+)?)\s*([kmgtKMGT])(?:bps|bits?(?:\/s)?|b\/s|b)?$/;
const FACTORS: Readonly<Record<string, number>> = { k: 1e3, m: 1e6, g: 1e9, t: 1e12 };

/** Bits a second; undefined if the text isn't a speed above 0. */
export function parseLinkSpeed(text: string): number | undefined {
  const match = SPEED.exec(text.trim());
  if (!match) return undefined;
  const bits = Number(match[1]) * FACTORS[match[2]!.toLowerCase()]!;
  return bits > 0 ? bits : undefined;
}
