import type { Command } from 'commander';
import { z } from 'zod';
import { type TrashView, trashView, volumeView } from '../model/api.ts';
import { formatAge } from '../model/quantity.ts';
import { anything, CliError, path } from './client.ts';
import type { Session } from './main.ts';
import { type Column, formatTable } from './output.ts';
import { sizeOr } from './volume-commands.ts';

const columns: readonly Column<TrashView>[] = [
  { title: 'ID', value: (entry) => entry.id },
  { title: 'NAME', value: (entry) => entry.name },
  { title: 'WHY', value: (entry) => entry.reason },
  { title: 'DATA', value: (entry) => sizeOr(entry.totalBytes, '-'), right: true },
  { title: 'SINCE', value: (entry) => formatAge(Date.now() - entry.removedAtMs), right: true },
  { title: 'DESTROYED IN', value: (entry) => formatAge(entry.expiresAtMs - Date.now()), right: true },
];

export function addTrashCommands(program: Command, session: () => Session): void {
  const trash = program.command('trash').description('removed volumes, until their time is up');

  trash
    .command('ls')
    .description('list the removed volumes')
    .action(async () => {
      const { client, print } = session();
      const entries = await client.get('/v1/trash', z.array(trashView));
      print(entries, () => formatTable(entries, columns));
    });

  trash
    .command('restore')
    .description('bring a removed volume back, under its old name or another')
    .argument('<id>', 'as "trash ls" shows it, or the name if there is only one such')
    .argument('[new-name]')
    .action(async (id: string, name: string | undefined) => {
      const { client, print } = session();
      const restored = await client.send('POST', path`/v1/trash/${id}/restore`, { name: name ?? null }, volumeView);
      print(restored, () => `${restored.name}\n`);
    });

  trash
    .command('purge')
    .description('destroy removed volumes for good, now')
    .argument('[id...]')
    .option('--all', 'everything in the trash')
    .action(async (ids: readonly string[], { all }: { readonly all?: true }) => {
      const { client, print } = session();
      if ((all === true) === ids.length > 0) throw new CliError('say which removed volumes to destroy, or --all');
      const doomed = all === true ? (await client.get('/v1/trash', z.array(trashView))).map((entry) => entry.id) : ids;
      for (const id of doomed) {
        await client.send('DELETE', path`/v1/trash/${id}`, undefined, anything);
        print({ purged: id }, () => `${id}\n`);
      }
    });
}
