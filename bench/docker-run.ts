import { image } from '../packaging/proof.ts';
import type { PluginHost } from '../test/support/plugin-host.ts';
import { interleave, median, timed } from './measure.ts';
import { ms, type Row, ratioRow } from './report.ts';

const roundsPlain = { warm: 1, counted: 24, maxMs: 100_000 };
const roundsBare = { warm: 1, counted: 12, maxMs: 30_000 };

/** `docker run --rm -v v:/data`, from the start of the client to its end, with the two drivers in turn. */
export async function benchDockerRun(flock: PluginHost): Promise<readonly Row[]> {
  const run = (volume: string, ...options: readonly string[]) =>
    timed(() => flock.docker('run', '--rm', ...options, '-v', `${volume}:/data`, image, 'true'));
  await flock.docker('volume', 'create', '-d', 'flock', 'bench-flock');
  await flock.docker('volume', 'create', 'bench-local');
  const rows: Row[] = [];
  // Without a network there is less beside the volume, so the ratio is worse.
  for (const [what, rounds, options] of [
    ['docker run', roundsPlain, []],
    ['docker run --network=none', roundsBare, ['--network=none']],
  ] as const) {
    const [ours = [], local = []] = await interleave(rounds, [
      () => run('bench-flock', ...options),
      () => run('bench-local', ...options),
    ]);
    rows.push(
      ratioRow(
        `${what} (${ours.length} rounds)`,
        ms(median(ours)),
        `local driver ${ms(median(local))}`,
        median(ours) / median(local),
        {
          max: 1.25,
        },
      ),
    );
  }
  return rows;
}
