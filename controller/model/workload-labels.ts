import { quote } from './names.ts';

/**
 * What controllers read of a container's labels. The proxy reads the others, and reports what is wrong with them
 * (proxy/model/labels.ts):
 *
 *     flock.service=web             the service that it belongs to
 *     flock.route...=... -> 8080    a port that has to take connections before the container counts as started
 *     flock.link...=... -> db:5432  the same of the service db
 *     flock.failover=auto           or manual, none: of a container without flock volumes, when its node is dead
 */
type Labels = Readonly<Record<string, string>>;

const failovers = ['auto', 'manual', 'none'] as const;
type Failover = (typeof failovers)[number];

const servicePattern = /^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$/;

/** Null: it has none, or a name that the proxy does not take either. */
export function serviceOf(labels: Labels): string | null {
  const name = (labels['flock.service'] ?? '').trim();
  return servicePattern.test(name) ? name : null;
}

/** Without the label: it is made elsewhere. With one that means nothing: people decide. */
export function failoverOf(labels: Labels): Failover {
  if (!Object.hasOwn(labels, 'flock.failover')) return 'auto';
  return failovers.find((one) => one === labels['flock.failover']?.trim()) ?? 'manual';
}

export function failoverProblem(labels: Labels): string | null {
  const value = labels['flock.failover'];
  if (value === undefined || failovers.some((one) => one === value.trim())) return null;
  return `--label flock.failover=${quote(value)}: use ${failovers.join(', ')}`;
}

/** Ports that the container's own routes lead to. */
export function portsOf(labels: Labels): readonly number[] {
  return valuesOf(labels, 'route').flatMap((value) => {
    const port = Number(/->\s*(\d{1,5})(\s|$)/.exec(value)?.[1] ?? 0);
    return isPort(port) ? [port] : [];
  });
}

/** Where its links lead. */
export function linksOf(labels: Labels): readonly { readonly service: string; readonly port: number }[] {
  return valuesOf(labels, 'link').flatMap((value) => {
    const [, service = '', text = ''] = /->\s*([^\s:]+):(\d{1,5})\s*$/.exec(value) ?? [];
    return servicePattern.test(service) && isPort(Number(text)) ? [{ service, port: Number(text) }] : [];
  });
}

function valuesOf(labels: Labels, kind: 'route' | 'link'): readonly string[] {
  const prefix = `flock.${kind}`;
  return Object.entries(labels)
    .filter(([label]) => label === prefix || label.startsWith(`${prefix}.`))
    .map(([, value]) => value);
}

function isPort(port: number): boolean {
  return port >= 1 && port <= 65_535;
}
