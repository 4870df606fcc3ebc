import type { Command } from 'commander';
import { z } from 'zod';
import { type SnapshotView, snapshotView, volumeView } from '../model/api.ts';
import { formatSize } from '../model/quantity.ts';
import { anything, CliError, path } from './client.ts';
import type { Session } from './main.ts';
import { type Column, formatTable } from './output.ts';
import { parsePairs } from './volume-commands.ts';

const columns: readonly Column<SnapshotView>[] = [
  { title: 'NAME', value: (snapshot) => snapshot.name },
  { title: 'CREATED', value: (snapshot) => new Date(snapshot.createdAtMs).toISOString() },
  { title: 'OWN DATA', value: (snapshot) => formatSize(snapshot.uniqueBytes), right: true },
  { title: 'HELD BY', value: (snapshot) => (snapshot.holds.length === 0 ? '-' : snapshot.holds.join(',')) },
];

export function addSnapshotCommands(program: Command, session: () => Session): void {
  const snapshot = program.command('snapshot').description('the points in a volume’s history');

  snapshot
    .command('create')
    .description('keep the content of a volume as it is now; without a name it is called after the time')
    .argument('<volume>')
    .argument('[name]')
    .action(async (volume: string, name: string | undefined) => {
      const { client, print } = session();
      const made = await client.send(
        'POST',
        path`/v1/volumes/${volume}/snapshots`,
        { name: name ?? null },
        snapshotView,
      );
      print(made, () => `${volume}@${made.name}\n`);
    });

  snapshot
    .command('ls')
    .description('list the snapshots of a volume, oldest first')
    .argument('<volume>')
    .action(async (volume: string) => {
      const { client, print } = session();
      const snapshots = await client.get(path`/v1/volumes/${volume}/snapshots`, z.array(snapshotView));
      print(snapshots, () => formatTable(snapshots, columns));
    });

  snapshot
    .command('rm')
    .description('destroy snapshots of a volume for good')
    .argument('<volume>')
    .argument('<name...>')
    .action(async (volume: string, names: readonly string[]) => {
      const { client, print } = session();
      for (const name of names) {
        await client.send('DELETE', path`/v1/volumes/${volume}/snapshots/${name}`, undefined, anything);
        print({ removed: `${volume}@${name}` }, () => `${volume}@${name}\n`);
      }
    });

  program
    .command('rollback')
    .description('bring back the content of a snapshot; what the volume holds now is kept in the trash')
    .argument('<volume>')
    .argument('<snapshot>')
    .action(async (volume: string, name: string) => {
      const { client, print } = session();
      const result = await client.send(
        'POST',
        path`/v1/volumes/${volume}/rollback`,
        { snapshot: name },
        z.object({ volume: volumeView, aside: z.string() }),
      );
      print(
        result,
        () =>
          `${volume} is now as it was at ${name}.\nWhat it held until now is kept as ${result.aside}: "flockctl trash restore ${result.aside} NEW_NAME" brings it back as a volume of its own.\n`,
      );
    });

  program
    .command('clone')
    .description('make a new volume from a volume or one of its snapshots; it costs no space and no time')
    .argument('<source>', 'VOLUME or VOLUME@SNAPSHOT')
    .argument('<new-name>')
    .option('--opt <name=value...>', 'driver options of the new volume, such as --opt size=20G')
    .action(async (source: string, name: string, { opt }: { readonly opt?: readonly string[] }) => {
      const { client, print } = session();
      const options = parsePairs(opt ?? []);
      if ('from' in options) throw new CliError('the option "from" is the first argument of clone already');
      const made = await client.send(
        'POST',
        '/v1/volumes',
        { name, options: { ...options, from: source } },
        volumeView,
      );
      print(made, () => `${made.name}\n`);
    });
}
