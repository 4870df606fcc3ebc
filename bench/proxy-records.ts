import { parseNodeName } from '../controller/model/names.ts';
import { parseRouteText } from '../proxy/model/labels.ts';
import { parseServiceName } from '../proxy/model/names.ts';
import type { LinkDoc, ProxyRecords } from '../proxy/model/records.ts';
import { addresses } from '../test/contract/proxy-kernel-net.ts';

/** Records without their generation: the part that serves them counts. */
export type Records = Omit<ProxyRecords, 'generation'>;

/** The node that serves; all containers are its own. */
export const node = parseNodeName('here');

/**
 * Routes (`tcp://:5432 -> 80`) by their text with the name of their service, services with the addresses of their containers.
 * `links`: those of container `app`, by its port.
 */
export function recordsOf(
  routes: Readonly<Record<string, string>>,
  services: Readonly<Record<string, readonly string[]>>,
  more: { readonly links?: readonly Link[]; readonly pausedUntilMs?: number } = {},
): Records {
  const { pausedUntilMs = null } = more;
  const pause = pausedUntilMs === null ? null : { id: `pause-${pausedUntilMs}`, untilMs: pausedUntilMs, drain: null };
  return {
    peers: [],
    services: Object.keys(services).map((name) => ({
      name: parseServiceName(name),
      createdAtMs: 0,
      balance: 'round-robin',
      stateful: false,
      pause,
    })),
    routes: Object.entries(routes).map(([text, service], index) => ({
      id: `route-${index}`,
      service: parseServiceName(service),
      createdAtMs: index,
      ...parseRouteText(text),
    })),
    links: (more.links ?? []).map(linkOf),
    upstreams: Object.entries(services).flatMap(([service, hosts]) =>
      hosts.map((address) => ({
        container: `${service}-${address}`,
        service: parseServiceName(service),
        node,
        startedAtMs: 0,
        healthy: true,
        address,
        inner: { address: addresses.a, ports: {} },
      })),
    ),
  };
}

export type Link = { readonly port: number; readonly service: string; readonly targetPort: number };

const firstLinkPort = 24_001;

function linkOf({ port, service, targetPort }: Link, index: number): LinkDoc {
  const place = { node, client: addresses.app, gateway: '172.31.0.1', port: firstLinkPort + index };
  const ends = { client: 'app', host: null, port, service: parseServiceName(service), targetPort };
  return { id: `link-${index}`, createdAtMs: 0, ...ends, place };
}
