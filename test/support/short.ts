/**
 * Whether only a sample of the longest tests is to run: `make test` has to end well under an hour also where others share the processors.
 * `make test-whole`, and suites that are asked for by name, run everything.
 */
export const isShort = process.env['FLOCK_TEST'] === 'short';
