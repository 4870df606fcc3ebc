/**
 * A small fast hash for spreading, not for secrets. `hashText` is FNV-1a of 32 bits (Fowler, Noll, Vo; public domain; constants of
 * RFC 9923), whose last bytes reach few bits, so `mix` follows: the finaliser of MurmurHash3 (Austin Appleby, public domain), which
 * changes every bit of the result with a chance of one half when one bit of its input changes, and is a bijection.
 */
export function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    hash = Math.imul(hash ^ (code & 0xff), 0x01000193);
    // Names are ASCII; the second byte keeps other texts apart.
    if (code > 0xff) hash = Math.imul(hash ^ (code >>> 8), 0x01000193);
  }
  return mix(hash);
}

/** Of 32 bits to 32 bits, unsigned. */
export function mix(bits: number): number {
  let hash = bits;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
