import { readFile } from 'node:fs/promises';
import type { PluginHost } from '../test/support/plugin-host.ts';
import { volumesMax } from './answers.ts';
import { median } from './measure.ts';
import { connect, ensureVolumes } from './plugin-client.ts';
import { figureRow, type Row } from './report.ts';

const rounds = 5;
const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`;

/** A node with many volumes: how long it takes to start, and what the plugin's process takes of memory. */
export async function benchStart(flock: PluginHost): Promise<readonly Row[]> {
  await ensureVolumes(await connect(flock), volumesMax);
  const worked = await memoryOf(flock);
  const answered: number[] = [];
  const usable: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await flock.disable();
    const startMs = performance.now();
    // Ends when the plugin has answered Docker.
    await flock.enable();
    const client = await connect(flock);
    await client.call('Capabilities');
    answered.push(performance.now() - startMs);
    await client.call('Mount', { Name: 'many1', ID: 'bench' });
    usable.push(performance.now() - startMs);
    await client.call('Unmount', { Name: 'many1', ID: 'bench' });
  }
  const fresh = await memoryOf(flock);
  const volumes = `${volumesMax} volumes`;
  return [
    figureRow(`enable to socket ready, ${volumes}`, median(answered), seconds, { max: 2000 }),
    figureRow('enable to first volume mounted', median(usable), seconds, null),
    figureRow(`memory (RSS) after the work above, ${volumes}`, worked.rss, megabytes, { max: 150e6 }),
    figureRow('memory (PSS)', worked.pss, megabytes, { max: 150e6 }),
    figureRow(`memory (RSS) after a start, ${volumes}`, fresh.rss, megabytes, { max: 150e6 }),
    figureRow('memory (PSS)', fresh.pss, megabytes, { max: 150e6 }),
  ];
}

async function memoryOf(flock: PluginHost): Promise<{ readonly rss: number; readonly pss: number }> {
  const text = await readFile(`/proc/${await flock.pluginPid()}/smaps_rollup`, 'utf8');
  const bytes = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(text)?.[1]) * 1024;
  return { rss: bytes('Rss'), pss: bytes('Pss') };
}
