import type { Command } from 'commander';
import { z } from 'zod';
import { madeRouteView, type OriginView, type RouteView, routeView } from '../model/proxy-api.ts';
import { anything, path } from './client.ts';
import type { Session } from './main.ts';
import { type Column, formatTable } from './output.ts';

export const routeColumns: readonly Column<RouteView>[] = [
  { title: 'ID', value: (route) => route.id },
  { title: 'ADDRESS', value: (route) => route.address },
  { title: 'SERVICE', value: (route) => `${route.service}:${route.port}` },
  { title: 'MADE BY', value: (route) => madeBy(route.origin) },
  { title: 'STATE', value: (route) => route.state },
  { title: 'REASON', value: (route) => route.reason ?? '' },
];

const syntax = `
A route leads clients of an address to a port of a service:

  http://www.example.com/shop -> web:8080       HOST[:PORT][/PATH]; *.example.com is every name below
  https://www.example.com -> web:8080           ended here, with the certificate of the host's name,
                                                or certificate=NAME after the port
  tls://db.example.com:5433 -> db:5432          passed on as it is, by the name that the client asks for
  tcp://:3306 -> mysql:3306                     a port of every node; tcp://192.0.2.1:3306 of one address
  ... -> db:5432 proxy-protocol=v2              tls and tcp: the service is told the client's address

Labels of containers make routes, too: flock.service=web and flock.route=http://www.example.com -> 8080`;

export function addRouteCommands(program: Command, session: () => Session): void {
  const route = program
    .command('route')
    .description('public addresses that lead to services')
    .addHelpText('after', syntax);

  route
    .command('add')
    .description('lead an address to a service, on every node')
    .argument('<route>', 'such as "http://www.example.com -> web:8080"')
    .option('--force', 'also to a service that no container has yet')
    .addHelpText('after', syntax)
    .action(async (text: string, { force }: { readonly force?: true }) => {
      const { proxy, print, note } = session();
      const body = { route: text, force: force === true };
      const made = await proxy.send('POST', '/v1/routes', body, madeRouteView);
      print(made, () => formatTable([made.route], routeColumns));
      for (const text of made.notes) note(text);
    });

  route
    .command('ls')
    .description('list the routes, those of labels too')
    .action(async () => {
      const { proxy, print } = session();
      const routes = await proxy.get('/v1/routes', z.array(routeView));
      print(routes, () => formatTable(routes, routeColumns));
    });

  route
    .command('rm')
    .description('remove routes that flockctl has made')
    .argument('<id...>', 'as "route ls" shows them')
    .action(async (ids: readonly string[]) => {
      const { proxy, print } = session();
      for (const id of ids) {
        await proxy.send('DELETE', path`/v1/routes/${id}`, undefined, anything);
        print({ removed: id }, () => `${id}\n`);
      }
    });
}

export function madeBy(origin: OriginView): string {
  return origin.kind === 'flockctl' ? 'flockctl' : `${origin.label} of ${origin.container} on ${origin.node}`;
}
