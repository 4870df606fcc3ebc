import pino from 'pino';
import { createMovesPart } from '../moves/part.ts';
import { controllerPathsBelow } from './paths.ts';
import { run } from './program.ts';

/**
 * Where the container flock-controller starts, and the only reader of its environment: FLOCK_ROOT, where everything is, for tests, and
 * FLOCK_LOG_LEVEL.
 */
const logBytesMax = 8 * 1024 * 1024;

const stop = new AbortController();
for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stop.abort());

const output = pino.destination({ dest: 1, sync: false, maxLength: logBytesMax });
const level = process.env['FLOCK_LOG_LEVEL'] || 'info';
const log = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, output);

const paths = controllerPathsBelow(process.env['FLOCK_ROOT'] ?? '/');
await run({ paths, parts: [createMovesPart], log }, stop.signal);
output.flushSync();
// Whatever has not ended by now is done again by the next start.
process.exit(0);
