/** The managed plugin on the real OpenZFS module, in a virtual machine: see guest.ts. */
import { guestSuite } from './guest-suite.ts';

await guestSuite({
  file: 'plugin.ts',
  docker: true,
  // Docker, its containers and the plugin, all with time limits.
  processors: 2,
  timeoutMs: 30 * 60_000,
  files: ['build/rootfs', 'build/plugin/config.json'],
});
