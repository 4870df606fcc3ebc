import type { HostNet } from '../../controller/program/host-net.ts';

/** A host on which nothing listens, that reaches nobody, and has every address. */
export const quietNet: HostNet = {
  sockets: async () => [],
  routes: async () => [],
  isOwn: async () => true,
};
