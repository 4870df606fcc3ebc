/**
 * What of a message's headers goes on to the other side. Pure.
 *
 * Hop-by-hop headers (RFC 9110 7.6.1) belong to one connection; passed on they smuggle requests, leak proxy passwords and break
 * keep-alive. What strangers claim about who they are is dropped, too: only the cluster's own proxies are believed.
 */
export type RequestHeaders = Record<string, string | string[]>;

export type ClientFacts = {
  /** As sockets give it: an IPv4 address may come as ::ffff:192.0.2.1. */
  readonly address: string;
  readonly protocol: 'http' | 'https';
  /** What the client called us. */
  readonly authority: string;
  /** Another proxy of the cluster sent it and has filled in the forwarding headers. */
  readonly isTrusted: boolean;
};

const hopByHop = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  // Not hop-by-hop, but answered by us: Node sends "100 Continue" itself.
  'expect',
  // A request to switch to HTTP/2 on this connection.
  'http2-settings',
]);

const claims = new Set([
  'forwarded',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-forwarded-proto',
  'x-forwarded-server',
  'x-real-ip',
]);

/** Of no use to a client that lists them in Connection: without them the message would mean something else. */
const never = new Set(['content-length', 'transfer-encoding', 'host', 'trailer']);

/** The framing of a request's body, decided before anything else is. */
export type Body = 'none' | 'length' | 'chunked';

/** Why a request is refused before anybody else sees it; null: it is fine. */
export function requestProblem(
  rawHeaders: readonly string[],
  headers: NodeJS.Dict<string | string[]>,
  httpVersion: string,
): { readonly status: number; readonly text: string } | null {
  // Node takes "GET /a<line feed>" for HTTP/0.9, headers and all.
  if (httpVersion !== '1.1' && httpVersion !== '1.0')
    return { status: 505, text: 'only versions 1.0 and 1.1 are spoken' };
  let hosts = 0;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] ?? '';
    // Node keeps the first of several and says nothing; a service behind might take the last.
    if (name.length === 4 && name.toLowerCase() === 'host') hosts += 1;
  }
  if (hosts > 1) return { status: 400, text: 'more than one Host header' };
  const coding = headers['transfer-encoding'];
  if (coding === undefined) return null;
  if (httpVersion !== '1.1') return { status: 400, text: 'Transfer-Encoding needs HTTP/1.1' };
  if (headers['content-length'] !== undefined)
    return { status: 400, text: 'both Transfer-Encoding and Content-Length' };
  if (String(coding).toLowerCase() !== 'chunked')
    return { status: 501, text: 'only the transfer coding "chunked" is known' };
  return null;
}

export function bodyOf(headers: NodeJS.Dict<string | string[]>): Body {
  if (headers['transfer-encoding'] !== undefined) return 'chunked';
  const length = headers['content-length'];
  return length === undefined || length === '0' ? 'none' : 'length';
}

/** `headers`: as Node has parsed them, names in lower case. */
export function requestHeaders(headers: NodeJS.Dict<string | string[]>, client: ClientFacts): RequestHeaders {
  const listed = listedIn(headers['connection']);
  const kept: RequestHeaders = {};
  for (const name in headers) {
    if (hopByHop.has(name) || listed?.has(name) || (!client.isTrusted && isClaim(name))) continue;
    const value = headers[name];
    if (value !== undefined) kept[name] = value;
  }
  // Otherwise Node writes the bodies of DELETE, GET and others bare behind the headers, where the service takes them for a request.
  if (headers['transfer-encoding'] !== undefined) kept['transfer-encoding'] = 'chunked';
  if (headers['trailer'] !== undefined) kept['trailer'] = headers['trailer'];
  kept['host'] = client.authority;
  if (client.isTrusted && kept['forwarded'] !== undefined) return kept;
  const address = client.address.startsWith('::ffff:') ? client.address.slice(7) : client.address;
  kept['x-forwarded-for'] = address;
  kept['x-forwarded-proto'] = client.protocol;
  kept['x-forwarded-host'] = client.authority;
  const node = address.includes(':') ? `"[${address}]"` : address;
  kept['forwarded'] = `for=${node};host="${client.authority}";proto=${client.protocol}`;
  return kept;
}

/** Flat list of names and values as they came, without what was meant for the connection between us and the service. */
export function responseHeaders(rawHeaders: readonly string[], isChunked: boolean): string[] {
  let listed: ReadonlySet<string> | null = null;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] ?? '';
    if (name.length === 10 && name.toLowerCase() === 'connection') listed = listedIn(rawHeaders[index + 1]) ?? listed;
  }
  const kept: string[] = [];
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const [name = '', value = ''] = [rawHeaders[index], rawHeaders[index + 1]];
    const lower = name.toLowerCase();
    if (listed?.has(lower)) continue;
    // Announces trailers, which we pass on where the framing allows them.
    if (hopByHop.has(lower) && !(lower === 'trailer' && isChunked)) continue;
    kept.push(name, value);
  }
  return kept;
}

/** Servers that put trailers among the headers must not be given what would be refused or replaced there. */
export function mayTrail(name: string): boolean {
  const lower = name.toLowerCase();
  return !hopByHop.has(lower) && !never.has(lower) && !isClaim(lower);
}

/** Names that Connection lists; null for the two that are almost always there. */
function listedIn(connection: string | readonly string[] | undefined): ReadonlySet<string> | null {
  if (connection === undefined || typeof connection !== 'string') return null;
  const value = connection.toLowerCase();
  if (value === 'keep-alive' || value === 'close' || value === '') return null;
  const names = value.split(',').map((name) => name.trim());
  return new Set(names.filter((name) => !never.has(name)));
}

/** With underscores, too: CGI and its heirs can't tell them from hyphens. */
function isClaim(name: string): boolean {
  if (claims.has(name)) return true;
  return name.includes('_') && claims.has(name.replaceAll('_', '-'));
}
