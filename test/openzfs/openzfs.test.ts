/** The zfs backend and the managed plugin on the real OpenZFS module, in a virtual machine: see guest.ts. */
import { guestSuite } from './guest-suite.ts';

const minuteMs = 60_000;

await guestSuite({ file: 'storage.ts', docker: false, timeoutMs: 45 * minuteMs, files: [] });
await guestSuite({
  file: 'plugin.ts',
  docker: true,
  timeoutMs: 30 * minuteMs,
  files: ['build/rootfs', 'build/plugin/config.json'],
});
