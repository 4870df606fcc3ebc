import { FlockError } from '../../controller/model/errors.ts';
import { quote } from '../../controller/model/names.ts';

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** A container, or a set of like stateless ones, as routes and links call it. */
export type ServiceName = Branded<'ServiceName'>;
/** `www.example.com`, `*.example.com` (every name below it, at any depth), an IP address, or `*`: lower case, no trailing dot. */
export type HostPattern = Branded<'HostPattern'>;
/** `/` or `/shop`: starts with a slash and, but for `/` itself, ends without one. */
export type PathPrefix = Branded<'PathPrefix'>;

const servicePattern = /^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$/;
const hostLabelPattern = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/;
const hostCharactersMax = 253;
const pathPattern = /^(\/[A-Za-z0-9._~!$&'()+,;=:@%-]+)+$/;
const pathCharactersMax = 1024;
/** The depth bounds the look-ups of a request. */
export const pathSegmentsMax = 16;

/** Throws `invalid-name`. */
export function parseServiceName(text: string): ServiceName {
  if (servicePattern.test(text)) return text as ServiceName;
  throw new FlockError(
    'invalid-name',
    `invalid service name ${quote(text)}: use up to 63 lower-case letters, digits and inner dots, underscores or hyphens, such as "web" or "shop-db"`,
  );
}

/** Throws `invalid-name`. An empty text means every host. */
export function parseHostPattern(text: string): HostPattern {
  if (text === '' || text === '*') return '*' as HostPattern;
  const lower = text.toLowerCase();
  const address = parseIp(lower);
  if (address !== null) return address as HostPattern;
  const name = lower.endsWith('.') ? lower.slice(0, -1) : lower;
  const labels = (name.startsWith('*.') ? name.slice(2) : name).split('.');
  if (name.length <= hostCharactersMax && labels.every((label) => hostLabelPattern.test(label)))
    return name as HostPattern;
  throw new FlockError(
    'invalid-name',
    `invalid host ${quote(text)}: use a name such as "www.example.com", "*.example.com" for every name below it, an IP address, or nothing for every host (write international names in their xn-- form)`,
  );
}

/** Throws `invalid-name`. A slash at the end makes no difference. */
export function parsePathPrefix(text: string): PathPrefix {
  const path = text.replace(/\/$/, '');
  if (path === '') return '/' as PathPrefix;
  const segments = path.split('/').slice(1);
  const isPlain = segments.every((segment) => segment !== '.' && segment !== '..');
  if (pathPattern.test(path) && path.length <= pathCharactersMax && segments.length <= pathSegmentsMax && isPlain)
    return path as PathPrefix;
  throw new FlockError(
    'invalid-name',
    `invalid path ${quote(text)}: use at most ${pathSegmentsMax} segments without spaces, "//", "." and "..", such as "/shop"`,
  );
}

/** Throws `invalid-name`. */
export function parsePort(text: string): number {
  const port = /^[1-9][0-9]{0,4}$/.test(text) ? Number(text) : 0;
  if (port >= 1 && port <= 65_535) return port;
  throw new FlockError('invalid-name', `invalid port ${quote(text)}: use a number from 1 to 65535`);
}

const ipv4Pattern = /^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!$)|$)){4}$/;

/** An IPv4 or (with or without brackets) IPv6 address in one form per address, IPv6 without brackets; null for anything else. */
export function parseIp(text: string): string | null {
  if (ipv4Pattern.test(text)) return text;
  const inner = text.startsWith('[') && text.endsWith(']') ? text.slice(1, -1) : text;
  if (!inner.includes(':') || !/^[0-9a-f:.]{2,45}$/i.test(inner)) return null;
  // The URL parser knows all spellings of an IPv6 address and answers the canonical one.
  const url = URL.parse(`http://[${inner}]/`);
  return url === null ? null : url.hostname.slice(1, -1);
}
