/** The zfs backend on the real OpenZFS module, in a virtual machine: see guest.ts. */
import { guestSuite } from './guest-suite.ts';

await guestSuite({ file: 'storage.ts', docker: false, processors: 1, timeoutMs: 60 * 60_000, files: [] });
