/** Random numbers that can be had again: the same seed gives the same sequence. Not for secrets. */

/**
 * Doubles in [0, 1) of 53 bits by sfc32 (small fast counter, by Chris Doty-Humphrey, of PractRand), which passes
 * PractRand and BigCrush.
 */
export function seededRandom(seed: number): () => number {
  let a = seed | 0;
  let b = 0x9e3779b9 | 0;
  let c = 0x243f6a88 | 0;
  let counter = 1;
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    c |= 0;
    return sum >>> 0;
  };
  // Seeds that are close to each other begin alike; a dozen rounds part them.
  for (let round = 0; round < 12; round++) next();
  return () => ((next() >>> 5) * 67_108_864 + (next() >>> 6)) / 9_007_199_254_740_992;
}
