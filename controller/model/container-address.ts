import { z } from 'zod';

/** Where a host reaches its containers: one order, so that who waits for a container and who serves from it mean the same address. Pure. */

const text = z.string().default('');

/** Of Docker's answer, one of a container's networks; '': it has none of that there. */
export const placedSchema = z.object({ IPAddress: text, Gateway: text, GlobalIPv6Address: text, IPv6Gateway: text });

export type Place = {
  /** Of the network. */
  readonly name: string;
  readonly address: string;
  /** The host's own address there; '': it has none. */
  readonly gateway: string;
};

/** The best comes first. `mode`: its HostConfig.NetworkMode. */
export function placesOf(
  mode: string,
  networks: Readonly<Record<string, z.infer<typeof placedSchema>>>,
): readonly Place[] {
  const main = mode === 'default' ? 'bridge' : mode;
  return (
    Object.entries(networks)
      .map(([name, { IPAddress, Gateway, GlobalIPv6Address, IPv6Gateway }]) =>
        IPAddress === ''
          ? { name, address: GlobalIPv6Address, gateway: IPv6Gateway }
          : { name, address: IPAddress, gateway: Gateway },
      )
      .filter(({ address }) => address !== '')
      // Overlay networks have no gateway on the host, which can't reach them; then the one that it was started with; then by name.
      .toSorted(
        (a, b) =>
          Number(a.gateway === '') - Number(b.gateway === '') ||
          Number(a.name !== main) - Number(b.name !== main) ||
          (a.name < b.name ? -1 : 1),
      )
  );
}
