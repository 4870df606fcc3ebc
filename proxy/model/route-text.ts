import { FlockError } from '../../controller/model/errors.ts';
import { quote } from '../../controller/model/names.ts';
import { parseRouteText } from './labels.ts';
import { type HostPattern, parseServiceName, type ServiceName } from './names.ts';
import type { Entrance } from './records.ts';

/** What `flockctl route add` takes: a label's text with SERVICE:PORT right of the arrow, as links have it. */
export function parseServiceRoute(text: string): {
  readonly service: ServiceName;
  readonly entrance: Entrance;
  readonly targetPort: number;
} {
  const example = 'http://www.example.com -> web:8080';
  const [left, right, ...more] = text.split('->').map((side) => side.trim());
  if (!left || !right || more.length > 0)
    throw invalid(`${quote(text)} has not one arrow with something on both sides: write it like "${example}"`);
  const [target = '', ...options] = right.split(/\s+/);
  const parts = /^([^\s:]+):([^\s:]+)$/.exec(target);
  if (parts === null)
    throw invalid(`${quote(target)} is no service and port: use SERVICE:PORT, such as web:8080 in "${example}"`);
  const [, service = '', port = ''] = parts;
  return {
    service: parseServiceName(service),
    ...parseRouteText(`${left} -> ${[port, ...options].join(' ')}`),
  };
}

/** As people write it: `http://www.example.com/shop`. Ports that go without saying are left out. */
export function formatEntrance(entrance: Entrance): string {
  const { protocol, port } = entrance;
  if (protocol === 'tcp') return `tcp://${bracketed(entrance.address === '*' ? '' : entrance.address)}:${port}`;
  const usual = protocol === 'http' ? 80 : 443;
  const host = entrance.host === '*' ? '' : bracketed(entrance.host);
  const path = protocol === 'tls' || entrance.path === '/' ? '' : entrance.path;
  return `${protocol}://${host}${port === usual ? '' : `:${port}`}${path}`;
}

/** `3306` and `mysql:3306`, whichever names lead there. */
export function formatLinkSource(host: HostPattern | null, port: number): string {
  return host === null ? String(port) : `${host}:${port}`;
}

function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

function invalid(text: string): FlockError {
  return new FlockError('invalid-option', text);
}
