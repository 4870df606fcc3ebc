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
  const bindings = createSchema.safeParse(create).data?.HostConfig.PortBindings ?? {};
  return Object.entries(bindings).flatMap(([inner, hosts]) =>
    (hosts ?? []).flatMap(({ HostIp, HostPort }) =>
      /^[1-9]\d*$/.test(HostPort)
        ? [{ ip: HostIp, port: Number(HostPort), protocol: inner.split('/')[1] ?? 'tcp' }]
        : [],
    ),
  );
}

const everyAddress: ReadonlySet<string> = new Set(['', '0.0.0.0', '::']);

/** The first of the wanted ports that the others leave no room for; null: none. */
export function conflictOf(wanted: readonly PublishedPort[], taken: readonly PublishedPort[]): PublishedPort | null {
  const isTaken = ({ ip, port, protocol }: PublishedPort) =>
    taken.some(
      (other) =>
        other.port === port &&
        other.protocol === protocol &&
        (other.ip === ip || everyAddress.has(ip) || everyAddress.has(other.ip)),
    );
  return wanted.find(isTaken) ?? null;
}
