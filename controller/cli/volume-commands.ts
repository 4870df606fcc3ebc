import type { Command } from 'commander';
import { z } from 'zod';
import { type VolumeView, volumeView } from '../model/api.ts';
import { formatAge, formatSize } from '../model/quantity.ts';
import { anything, CliError, path } from './client.ts';
import type { Session } from './main.ts';
import { type Column, formatFacts, formatTable } from './output.ts';

const columns: readonly Column<VolumeView>[] = [
  { title: 'NAME', value: (volume) => volume.name },
  { title: 'PHASE', value: (volume) => volume.phase },
  { title: 'USED', value: (volume) => sizeOr(volume.usedBytes, '-'), right: true },
  { title: 'SIZE', value: (volume) => sizeOr(volume.sizeBytes, 'unlimited'), right: true },
  { title: 'WITH SNAPSHOTS', value: (volume) => sizeOr(volume.totalBytes, '-'), right: true },
  { title: 'MOUNTS', value: (volume) => String(volume.mounts), right: true },
  { title: 'AGE', value: (volume) => formatAge(Date.now() - volume.createdAtMs), right: true },
];

export function addVolumeCommands(program: Command, session: () => Session): void {
  const volume = program.command('volume').description('list, inspect and change volumes');

  volume
    .command('ls')
    .description('list the volumes')
    .action(async () => {
      const { client, print } = session();
      const volumes = await client.get('/v1/volumes', z.array(volumeView));
      print(volumes, () => formatTable(volumes, columns));
    });

  volume
    .command('inspect')
    .description('everything about volumes')
    .argument('<name...>')
    .action(async (names: readonly string[]) => {
      const { client, print } = session();
      const volumes = await Promise.all(names.map((name) => client.get(path`/v1/volumes/${name}`, volumeView)));
      print(volumes, () => volumes.map((found) => formatFacts(facts(found))).join('\n'));
    });

  volume
    .command('rm')
    .description('move volumes to the trash')
    .argument('<name...>')
    .action(async (names: readonly string[]) => {
      const { client, print } = session();
      for (const name of names) {
        await client.send('DELETE', path`/v1/volumes/${name}`, undefined, anything);
        print({ removed: name }, () => `${name}\n`);
      }
    });

  volume
    .command('resize')
    .description('set the size of a volume, or "none" for no limit')
    .argument('<name>')
    .argument('<size>', 'such as 20G')
    .action(async (name: string, size: string) => {
      await change(session(), name, { size });
    });

  volume
    .command('set')
    .description(
      'change options of a volume: size=SIZE, protect=true|false, failover=auto|manual|none, max-loss=TIME|none',
    )
    .argument('<name>')
    .argument('<option...>', 'NAME=VALUE')
    .action(async (name: string, options: readonly string[]) => {
      await change(session(), name, parsePairs(options));
    });
}

async function change({ client, print }: Session, name: string, body: Readonly<Record<string, string>>): Promise<void> {
  const changed = await client.send('PATCH', path`/v1/volumes/${name}`, body, volumeView);
  print(changed, () => formatTable([changed], columns));
}

export function parsePairs(words: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    words.map((word) => {
      const equals = word.indexOf('=');
      if (equals < 1) throw new CliError(`"${word}": write it as NAME=VALUE`);
      return [word.slice(0, equals), word.slice(equals + 1)];
    }),
  );
}

export function sizeOr(bytes: number | null, otherwise: string): string {
  return bytes === null ? otherwise : formatSize(bytes);
}

function facts(volume: VolumeView): Record<string, string> {
  const options = Object.entries(volume.options).map(([name, value]) => `${name}=${String(value)}`);
  return {
    Name: volume.name,
    Phase: volume.phase,
    Owner: volume.owner,
    Dataset: `${volume.id} (${volume.backend})`,
    Created: new Date(volume.createdAtMs).toISOString(),
    Used: sizeOr(volume.usedBytes, 'unknown'),
    Size: sizeOr(volume.sizeBytes, 'unlimited'),
    'With snapshots': sizeOr(volume.totalBytes, 'unknown'),
    Snapshots: volume.snapshots === null ? 'unknown' : String(volume.snapshots),
    Mounts: String(volume.mounts),
    Options: options.length === 0 ? '-' : options.join(' '),
  };
}
