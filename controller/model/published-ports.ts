import { z } from 'zod';
import type { ContainerSpec } from './workload.ts';

/** Ports of the host that containers publish (`-p`). Pure. */
export type PublishedPort = {
  /** An address of the host, or one that stands for all. */
  readonly ip: string;
  readonly port: number;
  /** `tcp`, `udp` or `sctp`. */
  readonly protocol: string;
};

const createSchema = z.object({
  HostConfig: z.object({
    NetworkMode: z.string().default(''),
    PortBindings: z
      .record(
        z.string(),
        z.array(z.object({ HostIp: z.string().default(''), HostPort: z.string().default('') })).nullish(),
      )
      .nullish(),
  }),
});

/** Those that are to be the same on every host: where Docker chooses, it chooses a free one. */
export function publishedBy({ create }: Pick<ContainerSpec, 'create'>): readonly PublishedPort[] {
  const host = createSchema.safeParse(create).data?.HostConfig;
  // Docker keeps what was asked for with these networks, and publishes nothing.
  if (host === undefined || /^(none|host|container:.*)$/.test(host.NetworkMode)) return [];
  const bindings = host.PortBindings ?? {};
  return Object.entries(bindings).flatMap(([inner, hosts]) =>
    (hosts ?? []).flatMap(({ HostIp, HostPort }) =>
      /^[1-9]\d*$/.test(HostPort)
        ? [{ ip: HostIp, port: Number(HostPort), protocol: inner.split('/')[1] ?? 'tcp' }]
        : [],
    ),
  );
}

/** Whether two addresses of the host meet: `0.0.0.0` and `::` stand for all of their kind, none for all. */
function doMeet(one: string, other: string): boolean {
  if (one === other || one === '' || other === '') return true;
  if (one.includes(':') !== other.includes(':')) return false;
  return isAny(one) || isAny(other);
}

export const isAny = (ip: string): boolean => ip === '0.0.0.0' || ip === '::';

/** The first of the wanted ports that the others leave no room for; null: none. */
export function conflictOf(wanted: readonly PublishedPort[], taken: readonly PublishedPort[]): PublishedPort | null {
  const isTaken = ({ ip, port, protocol }: PublishedPort) =>
    taken.some((other) => other.port === port && other.protocol === protocol && doMeet(other.ip, ip));
  return wanted.find(isTaken) ?? null;
}
