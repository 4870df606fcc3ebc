import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { bundle } from '../packaging/bundle.ts';
import type { PluginHost } from '../test/support/plugin-host.ts';
import { interleave, median, timed } from './measure.ts';
import { connect, type PluginClient } from './plugin-client.ts';
import { extraRow, type Row } from './report.ts';
import { type Step, steps, type Times } from './steps.ts';

const rounds = { warm: 3, counted: 60, maxMs: 45_000 };

/** Each step of a volume's life through the plugin's socket, by the storage backend alone and by its commands alone. */
export async function benchOperations(flock: PluginHost): Promise<readonly Row[]> {
  await flock.flockctl('settings', 'set', 'trash=0');
  const client = await connect(flock);
  const byHand = await startByHand(flock);
  try {
    console.log(steps.map((step) => `  ${step}: ${byHand.commands[step].join('; ') || 'no command'}`).join('\n'));
    let count = 0;
    const [ours = [], storage = [], commands = []] = await interleave(rounds, [
      async () => {
        count += 1;
        return await throughPlugin(client, `operation${count}`);
      },
      () => byHand.ask('storage'),
      () => byHand.ask('commands'),
    ]);
    const of = (all: readonly Times[], step: Step) => median(all.map((times) => times[step]));
    return steps.flatMap((step) => [
      extraRow(
        `${step} (${ours.length} rounds)`,
        of(ours, step),
        `its ${byHand.commands[step].length} commands`,
        of(commands, step),
        { max: 20 },
      ),
      extraRow('', of(ours, step), 'storage backend alone', of(storage, step), null),
    ]);
  } finally {
    byHand.end();
  }
}

async function throughPlugin(client: PluginClient, Name: string): Promise<Times> {
  const ID = `mount-of-${Name}`;
  return {
    create: await timed(() => client.call('Create', { Name, Opts: null })),
    mount: await timed(() => client.call('Mount', { Name, ID })),
    unmount: await timed(() => client.call('Unmount', { Name, ID })),
    remove: await timed(() => client.call('Remove', { Name })),
  };
}

type ByHand = {
  readonly commands: Readonly<Record<Step, readonly string[]>>;
  ask(way: 'storage' | 'commands'): Promise<Times>;
  end(): void;
};

/** by-hand.ts in the plugin's mount and process namespaces, by the Node of its image. */
async function startByHand(flock: PluginHost): Promise<ByHand> {
  const pid = await flock.pluginPid();
  const folder = '/tmp/bench';
  const inside = `/proc/${pid}/root${folder}`;
  await mkdir(inside, { recursive: true });
  await writeFile(join(inside, 'package.json'), '{"type":"module"}');
  for (const script of await bundle('by-hand', join(import.meta.dirname, 'by-hand.ts')))
    await writeFile(join(inside, script.name), script.contents);
  const child = spawn('nsenter', ['-t', String(pid), '-m', '-p', '--', '/usr/bin/node', `${folder}/by-hand.js`], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const line = await lines.next();
    if (line.done === true) throw new Error('the program that works by hand has ended');
    return JSON.parse(line.value) as unknown;
  };
  return {
    commands: (await next()) as ByHand['commands'],
    async ask(way) {
      child.stdin.write(`${way}\n`);
      return (await next()) as Times;
    },
    end: () => void child.stdin.end(),
  };
}
