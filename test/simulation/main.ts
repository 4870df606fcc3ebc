import { runSeeds } from './seeds.ts';

/** `make simulation [OF=controllers] [SEEDS=1000] [FROM=1] [TRACE=1]`: runs seeds and prints how to repeat those that failed. */
const of = process.env['OF'] === 'controllers' ? 'controllers' : 'plugins';
const from = Number(process.env['FROM'] || 1);
const count = Number(process.env['SEEDS'] || 1_000);
const startedMs = performance.now();
const { seeds, events, virtualMs, records, failures } = await runSeeds({
  of,
  from,
  count,
  onFailure: ({ seed, failure }) =>
    console.log(`seed ${seed}: ${failure}\n    make simulation OF=${of} FROM=${seed} SEEDS=1 TRACE=1`),
});
const seconds = (performance.now() - startedMs) / 1000;
console.log(
  `${seeds} seeds, ${failures.length} failed; each ${(events / seeds).toFixed(0)} events in ${(virtualMs / seeds / 1000).toFixed(0)} s with ${(records / seeds).toFixed(0)} records; ${(seeds / seconds).toFixed(1)} seeds a second`,
);
process.exit(failures.length > 0 ? 1 : 0);
