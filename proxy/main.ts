import pino from 'pino';
import { createProxyApi } from './api/api.ts';
import { makeStack } from './making.ts';
import { proxyPathsBelow } from './paths.ts';
import { run } from './program.ts';
import { removeTraces } from './removal.ts';

/**
 * Where the container flock-proxy starts, and the only reader of its environment: FLOCK_ROOT, where everything is, for tests, and
 * FLOCK_LOG_LEVEL. Whatever can change while it runs is in the settings file.
 */
const logBytesMax = 8 * 1024 * 1024;

const stop = new AbortController();
for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stop.abort());

// Lines are written whole and in order, but nobody waits for them: a log that nobody reads must not stop requests.
const output = pino.destination({ dest: 1, sync: false, maxLength: logBytesMax });
const level = process.env['FLOCK_LOG_LEVEL'] || 'info';
const log = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, output);

const paths = proxyPathsBelow(process.env['FLOCK_ROOT'] ?? '/');
// `proxy.js remove`, when the proxy goes for good.
if (process.argv[2] === 'remove') {
  const problems = await removeTraces(paths);
  for (const problem of problems) console.error(problem);
  process.exit(problems.length === 0 ? 0 : 1);
}
await run({ paths, makeStack, makeApi: createProxyApi, log }, stop.signal);
output.flushSync();
// Connections that have not ended by now are cut.
process.exit(0);
