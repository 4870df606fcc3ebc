import { FlockError } from '../../../controller/model/errors.ts';
import { stampBytesMax } from '../storage.ts';

/**
 * The value of a user property. Texts go in as they are, so that `zfs get` shows them to people, except those that would break the
 * line structure of its output or that `zfs set` refuses: these start with `%` and have control characters and `%` in hex.
 */
export function encodeStamp(text: string): string {
  const bytes = Buffer.byteLength(text);
  if (bytes > stampBytesMax) {
    throw new FlockError('invalid-option', `a stamp has at most ${stampBytesMax} bytes, not ${bytes}`);
  }
  if (text !== '' && !text.startsWith('%') && !hasControl(text)) return text;
  const escaped = [...text].map((character) =>
    isControl(character) || character === '%' ? hex(character) : character,
  );
  return `%${escaped.join('')}`;
}

export function decodeStamp(value: string): string {
  if (!value.startsWith('%')) return value;
  return value
    .slice(1)
    .replace(/%([0-9a-f]{2})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)));
}

function hasControl(text: string): boolean {
  return [...text].some(isControl);
}

function isControl(character: string): boolean {
  const code = character.charCodeAt(0);
  return code < 0x20 || code === 0x7f;
}

function hex(character: string): string {
  return `%${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
}
