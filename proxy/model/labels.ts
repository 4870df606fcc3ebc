import { FlockError, messageOf } from '../../controller/model/errors.ts';
import { quote } from '../../controller/model/names.ts';
import {
  type HostPattern,
  parseHostPattern,
  parseIp,
  parsePathPrefix,
  parsePort,
  parseServiceName,
  type ServiceName,
} from './names.ts';
import { portRange } from './ports.ts';
import { type Balance, balances, certificateName, type Entrance } from './records.ts';

/**
 * Container labels. All but `flock.service` can be given several times by a suffix of one's own choice:
 *
 *     flock.service=web                       the service that the container belongs to; needed for routes
 *     flock.balance=least-connections         or round-robin (the default)
 *     flock.stateful=true                     only one container of it is ever used
 *     flock.route=http://www.example.com -> 8080
 *     flock.route.shop=http://*.example.com/shop -> 8080
 *     flock.route.tls=https://www.example.com -> 8080 certificate=example
 *     flock.route.raw=tls://db.example.com:5433 -> 5432
 *     flock.route.sql=tcp://:3306 -> 3306     or tcp://192.0.2.1:3306 for one address of the node
 *     flock.route.pg=tcp://:5432 -> 5432 proxy-protocol=v2    the service learns the client's address
 *     flock.link=3306 -> mysql:3306           localhost:3306 and mysql:3306 reach port 3306 of service mysql
 *     flock.link.cache=cache:6379 -> redis:6379   localhost:6379 and cache:6379 reach port 6379 of service redis
 *
 * What stands left of the arrow is where clients connect to, right of it where that leads. Ports of http, https and tls may be left
 * out: 80, 443, 443.
 */
export type Declared = {
  readonly service: ServiceName | null;
  readonly balance: Balance;
  readonly stateful: boolean;
  readonly routes: readonly DeclaredRoute[];
  readonly links: readonly DeclaredLink[];
};

export type DeclaredRoute = { readonly label: string; readonly entrance: Entrance; readonly targetPort: number };
export type DeclaredLink = {
  readonly label: string;
  readonly host: HostPattern;
  readonly port: number;
  readonly service: ServiceName;
  readonly targetPort: number;
};

/** A label that can't be used. The others of the container count all the same. */
export type LabelProblem = { readonly label: string; readonly text: string };

const suffixPattern = /^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/;
/** Of routes, and of links; a container with more is a mistake. */
const declarationsMax = 64;
const ours = 'flock.service, flock.balance, flock.stateful, flock.route[.NAME], flock.link[.NAME]';

/**
 * `others`: labels below `flock.` that other parts of flock read, without the prefix, such as "replicas". Any further one is a
 * typing error and reported.
 */
export function readLabels(
  labels: Readonly<Record<string, string>>,
  others: readonly string[] = [],
): { readonly declared: Declared; readonly problems: readonly LabelProblem[] } {
  const problems: LabelProblem[] = [];
  const attempt = <T>(label: string, read: () => T): T | null => {
    try {
      return read();
    } catch (error) {
      problems.push({ label, text: `label ${label}: ${messageOf(error)}` });
      return null;
    }
  };
  let service: ServiceName | null = null;
  let balance: Balance = 'round-robin';
  let stateful = false;
  const routes: DeclaredRoute[] = [];
  const links: DeclaredLink[] = [];
  // In the order of their names, because Docker keeps none.
  for (const label of Object.keys(labels).filter(isOurs).toSorted()) {
    const value = (labels[label] ?? '').trim();
    const [, kind = '', ...suffix] = label.split('.');
    const isMany = kind === 'route' || kind === 'link';
    if (isMany && suffix.length > 0 && (suffix.length > 1 || !suffixPattern.test(suffix[0] ?? ''))) {
      problems.push({
        label,
        text: `label ${label}: after flock.${kind} comes one dot and a name of letters, digits, underscores and hyphens`,
      });
    } else if (kind === 'service' && suffix.length === 0) service = attempt(label, () => parseServiceName(value));
    else if (kind === 'balance' && suffix.length === 0)
      balance = attempt(label, () => oneOf(value, balances)) ?? balance;
    else if (kind === 'stateful' && suffix.length === 0)
      stateful = attempt(label, () => oneOf(value, ['true', 'false'])) === 'true';
    else if (kind === 'route')
      keep(
        routes,
        attempt(label, () => parseRoute(label, value, routes.length)),
      );
    else if (kind === 'link')
      keep(
        links,
        attempt(label, () => parseLink(label, value, links.length)),
      );
    else if (!others.includes(kind)) problems.push({ label, text: `there is no label ${label}: use ${ours}` });
  }
  if (service === null && routes.length > 0 && !problems.some(({ label }) => label === 'flock.service')) {
    const label = routes[0]?.label ?? 'flock.route';
    problems.push({ label, text: `label ${label}: which service is it? Add a label such as flock.service=web` });
  }
  return { declared: { service, balance, stateful, routes: service === null ? [] : routes, links }, problems };
}

/** `http://www.example.com/path -> 8080`. Throws a FlockError that says what is wrong. */
export function parseRouteText(text: string): { readonly entrance: Entrance; readonly targetPort: number } {
  const { left, right } = sides(text, 'http://www.example.com -> 8080');
  const [target = '', ...options] = right.split(/\s+/);
  const targetPort = parsePort(target);
  const match = /^([a-z]+):\/\/(\[[^\]]*\]|[^/:]*)(?::([^/]*))?(\/.*)?$/i.exec(left);
  const protocol = match?.[1]?.toLowerCase();
  const isKnown = protocol === 'http' || protocol === 'https' || protocol === 'tls' || protocol === 'tcp';
  if (match === null || !isKnown)
    throw invalid(
      `${quote(left)} is no address: use http://HOST[:PORT][/PATH], https://..., tls://HOST[:PORT] or tcp://[ADDRESS]:PORT`,
    );
  const [, , name = '', portText, pathText] = match;
  const { certificate, proxyProtocol } = optionsOf(options, protocol);
  const port = portText === undefined ? defaultPort(protocol) : parsePort(portText);
  requireFree(port, left);
  if (protocol === 'http')
    return {
      entrance: { protocol, host: parseHostPattern(name), port, path: parsePathPrefix(pathText ?? '/') },
      targetPort,
    };
  if (protocol === 'https') {
    const host = parseHostPattern(name);
    return {
      entrance: {
        protocol,
        host,
        port,
        path: parsePathPrefix(pathText ?? '/'),
        certificate: certificate ?? certificateFor(host),
      },
      targetPort,
    };
  }
  if (pathText !== undefined && pathText !== '/')
    throw invalid(`${protocol} knows no paths, so ${quote(pathText)} must go`);
  if (protocol === 'tls')
    return { entrance: { protocol, host: parseHostPattern(name), port, proxyProtocol }, targetPort };
  const address = name === '' || name === '*' ? '*' : parseIp(name);
  if (address === null)
    throw invalid(
      `${quote(name)} is no IP address: tcp knows no host names, use tcp://:${port} or tcp://192.0.2.1:${port}`,
    );
  return { entrance: { protocol, address, port, proxyProtocol }, targetPort };
}

function parseRoute(label: string, text: string, before: number): DeclaredRoute {
  if (before >= declarationsMax) throw invalid(`a container has at most ${declarationsMax} routes`);
  return { label, ...parseRouteText(text) };
}

function parseLink(label: string, text: string, before: number): DeclaredLink {
  if (before >= declarationsMax) throw invalid(`a container has at most ${declarationsMax} links`);
  return { label, ...parseLinkText(text) };
}

/** `3306 -> mysql:3306` or `db:3306 -> mysql:3306`. Throws a FlockError that says what is wrong. */
export function parseLinkText(text: string): Omit<DeclaredLink, 'label'> {
  const { left, right } = sides(text, '3306 -> mysql:3306');
  const target = /^([^\s:]+):([^\s:]+)$/.exec(right);
  if (target === null) throw invalid(`${quote(right)} is no service and port: use SERVICE:PORT, such as mysql:3306`);
  const service = parseServiceName(target[1] ?? '');
  const source = /^(?:([^\s:]+):)?([^\s:]+)$/.exec(left);
  if (source === null) throw invalid(`${quote(left)} is no port: use PORT or HOST:PORT, such as 3306 or db:3306`);
  const host = parseHostPattern(source[1] ?? service);
  if (host.startsWith('*'))
    throw invalid('the name left of the arrow goes into the container\'s /etc/hosts, which knows no "*"');
  return { host, port: parsePort(source[2] ?? ''), service, targetPort: parsePort(target[2] ?? '') };
}

function requireFree(port: number, address: string): void {
  if (port < portRange.first || port > portRange.last) return;
  throw new FlockError(
    'port-taken',
    `port ${port} is one of those that flock gives away itself (${portRange.first} to ${portRange.last}), so there can be no route ${address}: choose another port`,
    { port },
  );
}

function sides(text: string, example: string): { readonly left: string; readonly right: string } {
  const [left, right, ...more] = text.split('->').map((side) => side.trim());
  if (left && right && more.length === 0) return { left, right };
  throw invalid(`${quote(text)} has not one arrow with something on both sides: write it like "${example}"`);
}

/** What may follow the port: `certificate=NAME` for https, `proxy-protocol=v2` for tls and tcp. */
function optionsOf(
  options: readonly string[],
  protocol: string,
): { readonly certificate: string | null; readonly proxyProtocol: boolean } {
  let certificate: string | null = null;
  let proxyProtocol = false;
  const isRaw = protocol === 'tls' || protocol === 'tcp';
  for (const option of options) {
    const [name, value = '', ...more] = option.split('=');
    const isPlain = more.length === 0;
    if (isPlain && name === 'certificate' && protocol === 'https' && certificate === null) {
      const parsed = certificateName.safeParse(value);
      if (!parsed.success)
        throw invalid(`${quote(value)} is no name of a certificate: ${parsed.error.issues[0]?.message}`);
      certificate = parsed.data;
    } else if (isPlain && option === 'proxy-protocol=v2' && isRaw && !proxyProtocol) proxyProtocol = true;
    else
      throw invalid(
        `${quote(option)} is no option here: after the port may come, once, certificate=NAME for https and proxy-protocol=v2 for tls and tcp`,
      );
  }
  return { certificate, proxyProtocol };
}

/** A certificate is named like the host, without the wildcard, unless the label says otherwise. */
function certificateFor(host: HostPattern): string {
  const name = certificateName.safeParse(host.replace(/^\*\./, ''));
  if (name.success) return name.data;
  throw invalid('https for this host needs a certificate by name: add certificate=NAME after the port');
}

function defaultPort(protocol: 'http' | 'https' | 'tls' | 'tcp'): number {
  if (protocol === 'tcp') throw invalid('tcp needs a port: use tcp://:PORT');
  return protocol === 'http' ? 80 : 443;
}

function oneOf<T extends string>(value: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === value);
  if (found !== undefined) return found;
  throw invalid(`${quote(value)} is not possible: use ${choices.join(' or ')}`);
}

function isOurs(label: string): boolean {
  return label.startsWith('flock.');
}

function keep<T>(list: T[], item: T | null): void {
  if (item !== null) list.push(item);
}

function invalid(text: string): FlockError {
  return new FlockError('invalid-option', text);
}
