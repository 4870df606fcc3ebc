import { parseIp } from './names.ts';

/** What a request is for. `host` is in the form of a HostPattern; `path` is the path and query exactly as they came. */
export type RequestTarget = {
  readonly host: string;
  /** Host and port as the client wrote them, for the Host header of the request to the service. */
  readonly authority: string;
  readonly path: string;
};

const authorityPattern = /^(\[[0-9a-fA-F:.]+\]|[^:@/?#[\]\\\s]+)(?::([0-9]{0,5}))?$/;
const hostPattern = /^[a-z0-9_*-][a-z0-9_.-]{0,252}$/;

/**
 * The host of a Host header: port and trailing dot stripped, lower case, IPv6 without brackets in its one canonical form. Null for
 * what is no host: user names, paths, empty labels, several values.
 */
export function hostOf(authority: string): string | null {
  // Almost every header is this plain, and this is on the path of every request.
  const match = authorityPattern.exec(authority);
  const name = match?.[1];
  if (name === undefined) return null;
  if (match?.[2] !== undefined && Number(match[2]) > 65_535) return null;
  const lower = name.toLowerCase();
  if (lower.startsWith('[')) return parseIp(lower);
  const host = lower.endsWith('.') ? lower.slice(0, -1) : lower;
  return hostPattern.test(host) && !host.includes('..') && !host.includes('*') ? host : null;
}

/**
 * From the request line and the Host header. An absolute-form target (`GET http://host/path`) wins over the header, as RFC 9112
 * 3.2.2 wants it, and the service gets the host that was used. Null: answer 400.
 */
export function requestTarget(url: string, hostHeader: string | undefined): RequestTarget | null {
  let authority = hostHeader ?? '';
  let path = url;
  if (url === '*') path = '*';
  else if (!url.startsWith('/')) {
    const match = /^https?:\/\/([^/?#]+)(\/[^#]*|\?[^#]*)?$/i.exec(url);
    if (match === null) return null;
    authority = match[1] ?? '';
    const rest = match[2] ?? '/';
    path = rest.startsWith('?') ? `/${rest}` : rest;
  }
  if (path.includes('#')) return null;
  // HTTP/1.0 knows no Host header: such a request can only reach a route for every host.
  if (authority === '') return { host: '', authority, path };
  const host = hostOf(authority);
  return host === null ? null : { host, authority, path };
}
