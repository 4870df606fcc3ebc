import type { HostNet } from '../../controller/program/host-net.ts';

/** A host on which nothing listens, that is in no subnet, and has every address. */
export const quietNet: HostNet = {
  sockets: async () => [],
  subnets: async () => [],
  isOwn: async () => true,
};
