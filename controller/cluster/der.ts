/** The little of DER (ITU-T X.690) that it takes to write an X.509 certificate. Nothing is ever parsed here: OpenSSL does that. Pure. */

const tags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

const contextSpecific = 0x80;
const constructed = 0x20;

function encode(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  return Buffer.concat([Buffer.from([tag]), lengthOf(content.length), content]);
}

function lengthOf(length: number): Buffer {
  if (length < 0x80) return Buffer.from([length]);
  const bytes = bigEndian(length);
  return Buffer.concat([Buffer.from([0x80 | bytes.length]), bytes]);
}

function bigEndian(value: number): Buffer {
  const hex = value.toString(16);
  return Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex');
}

export const sequence = (...parts: readonly Uint8Array[]): Buffer => encode(tags.sequence, ...parts);
export const setOf = (...parts: readonly Uint8Array[]): Buffer => encode(tags.set, ...parts);
export const octetString = (bytes: Uint8Array): Buffer => encode(tags.octetString, bytes);
export const utf8 = (text: string): Buffer => encode(tags.utf8, Buffer.from(text, 'utf8'));
export const boolean = (value: boolean): Buffer => encode(tags.boolean, Buffer.from([value ? 0xff : 0]));

/** Of a number that is not negative, big end first. */
export function integer(bytes: Uint8Array): Buffer {
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start += 1;
  const digits = bytes.subarray(start);
  const first = digits[0] ?? 0;
  // A leading one bit would make it negative.
  return encode(tags.integer, first >= 0x80 ? Buffer.from([0]) : Buffer.alloc(0), digits);
}

/** `unusedBits`: how many bits at the end of the last byte don't count. */
export function bitString(bytes: Uint8Array, unusedBits = 0): Buffer {
  return encode(tags.bitString, Buffer.from([unusedBits]), bytes);
}

/** Of the dotted form, such as 2.5.29.17. */
export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  return encode(tags.oid, Buffer.from([first * 40 + second, ...rest.flatMap(base128)]));
}

function base128(value: number): readonly number[] {
  const digits = [value & 0x7f];
  for (let left = value >>> 7; left > 0; left >>>= 7) digits.unshift((left & 0x7f) | 0x80);
  return digits;
}

/** Whole seconds. RFC 5280 4.1.2.5: two digits of the year until 2049, four from 2050. */
export function time(ms: number): Buffer {
  const text = `${new Date(ms)
    .toISOString()
    .slice(0, 19)
    .replaceAll(/[^0-9]/g, '')}Z`;
  const isShort = new Date(ms).getUTCFullYear() < 2050;
  return isShort ? encode(tags.utcTime, Buffer.from(text.slice(2))) : encode(tags.generalizedTime, Buffer.from(text));
}

/** `[number]` around whole elements. */
export const explicit = (number: number, ...parts: readonly Uint8Array[]): Buffer =>
  encode(contextSpecific | constructed | number, ...parts);

/** `[number]` in place of a primitive element's own tag. */
export const implicit = (number: number, content: Uint8Array): Buffer => encode(contextSpecific | number, content);
