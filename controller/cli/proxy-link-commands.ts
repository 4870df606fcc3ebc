import type { Command } from 'commander';
import { z } from 'zod';
import { type LinkView, linkView, madeLinkView } from '../model/proxy-api.ts';
import { anything, path } from './client.ts';
import type { Session } from './main.ts';
import { type Column, formatTable } from './output.ts';
import { madeBy } from './proxy-route-commands.ts';

export const linkColumns: readonly Column<LinkView>[] = [
  { title: 'ID', value: (link) => link.id },
  { title: 'CONTAINER', value: (link) => link.container },
  { title: 'NODE', value: (link) => link.node ?? '-' },
  { title: 'LINK', value: (link) => `${link.host}:${link.port}` },
  { title: 'SERVICE', value: (link) => `${link.service}:${link.servicePort}` },
  { title: 'MADE BY', value: (link) => madeBy(link.origin) },
  { title: 'STATE', value: (link) => link.state },
  { title: 'REASON', value: (link) => link.reason ?? '' },
];

const syntax = `
A link leads localhost:PORT inside one container to a service, wherever that runs:

  3306 -> mysql:3306          localhost:3306 and mysql:3306 reach port 3306 of service mysql
  db:5432 -> postgres:5432    localhost:5432 and db:5432 reach port 5432 of service postgres

Labels of containers make links, too: flock.link=3306 -> mysql:3306`;

export function addLinkCommands(program: Command, session: () => Session): void {
  const link = program
    .command('link')
    .description('private ways from a container to a service')
    .addHelpText('after', syntax);

  link
    .command('add')
    .description('lead a port inside a container to a service')
    .argument('<container>', 'its name or id, on any node; it need not be there yet')
    .argument('<link>', 'such as "3306 -> mysql:3306"')
    .option('--force', 'also to a service that no container has yet')
    .addHelpText('after', syntax)
    .action(async (container: string, text: string, { force }: { readonly force?: true }) => {
      const { proxy, print, note } = session();
      const body = { container, link: text, force: force === true };
      const made = await proxy.send('POST', '/v1/links', body, madeLinkView);
      print(made, () => formatTable([made.link], linkColumns));
      for (const text of made.notes) note(text);
    });

  link
    .command('ls')
    .description('list the links, those of labels too')
    .action(async () => {
      const { proxy, print } = session();
      const links = await proxy.get('/v1/links', z.array(linkView));
      print(links, () => formatTable(links, linkColumns));
    });

  link
    .command('rm')
    .description('remove links that flockctl has made')
    .argument('<id...>', 'as "link ls" shows them')
    .action(async (ids: readonly string[]) => {
      const { proxy, print } = session();
      for (const id of ids) {
        await proxy.send('DELETE', path`/v1/links/${id}`, undefined, anything);
        print({ removed: id }, () => `${id}\n`);
      }
    });
}
