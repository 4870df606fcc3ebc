import type { Command } from 'commander';
import { poolView, settingsView, versionView } from '../model/api.ts';
import { formatDuration, formatSize } from '../model/quantity.ts';
import type { Session } from './main.ts';
import { formatFacts } from './output.ts';
import { parsePairs, sizeOr } from './volume-commands.ts';

export function addPoolCommands(program: Command, session: () => Session): void {
  program
    .command('df')
    .description('the pool: its state, size, and what volumes and trash take')
    .action(async () => {
      const { client, print } = session();
      const pool = await client.get('/v1/pool', poolView);
      print(pool, () =>
        formatFacts({
          Pool: `${pool.name} (${pool.backend})`,
          State: pool.message === null ? pool.state : `${pool.state}: ${pool.message}`,
          Size: sizeOr(pool.sizeBytes, 'unknown'),
          Free: sizeOr(pool.freeBytes, 'unknown'),
          Volumes: `${pool.volumes}, ${formatSize(pool.volumesBytes)}`,
          Trash: `${pool.trashed}, ${formatSize(pool.trashedBytes)}`,
        }),
      );
    });

  const settings = program.command('settings').description("this node's settings");

  settings
    .command('ls')
    .description('show the settings')
    .action(async () => {
      await show(session(), 'GET');
    });

  settings
    .command('set')
    .description('change a setting: trash=48h')
    .argument('<setting...>', 'NAME=VALUE')
    .action(async (words: readonly string[]) => {
      await show(session(), 'PATCH', parsePairs(words));
    });

  program
    .command('version')
    .description('the versions of flockctl’s plugin and of its runtime')
    .action(async () => {
      const { client, print } = session();
      const version = await client.get('/v1/version', versionView);
      print(version, () => `flock ${version.version} (${version.commit}), Node ${version.node}\n`);
    });
}

async function show(
  { client, print }: Session,
  method: 'GET' | 'PATCH',
  change?: Readonly<Record<string, string>>,
): Promise<void> {
  const settings =
    method === 'GET'
      ? await client.get('/v1/settings', settingsView)
      : await client.send(method, '/v1/settings', change, settingsView);
  print(settings, () =>
    formatFacts({
      backend: settings.backend,
      pool: settings.pool,
      'pool-size': formatSize(settings.poolSizeBytes),
      trash: formatDuration(settings.trashMs),
      stash: formatDuration(settings.stashMs),
      encryption: settings.encryption,
      'transfer-limit':
        settings.transferBytesPerSecond === null ? 'none' : `${formatSize(settings.transferBytesPerSecond)}/s`,
    }),
  );
}
