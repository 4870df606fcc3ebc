import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Where the container flock-haproxy starts: `haproxy.js CONFIGURATION [ARGUMENT...]` waits until the proxy has written HAProxy's
 * configuration, because HAProxy ends without one, and becomes HAProxy. Then nothing of Node is left.
 */
const program = '/usr/sbin/haproxy';
const pollMs = 100;

const [configuration, ...args] = process.argv.slice(2);
if (configuration === undefined) throw new Error('usage: haproxy.js CONFIGURATION [ARGUMENT...]');
// As the first process of a container it would ignore them.
for (const signal of ['SIGTERM', 'SIGINT', 'SIGUSR1'] as const) process.once(signal, () => process.exit(0));

if (!existsSync(configuration)) console.log(`waiting for ${configuration}`);
while (!existsSync(configuration)) await sleep(pollMs);
process.execve?.(program, [program, '-f', configuration, ...args]);
