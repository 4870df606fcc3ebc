import { type Command, Option } from 'commander';
import { z } from 'zod';
import {
  type DrainedNodeView,
  drainView,
  type PausedNodeView,
  pauseView,
  releaseView,
  type ServiceDetailView,
  type ServiceView,
  serviceDetailView,
  serviceView,
} from '../model/proxy-api.ts';
import { formatDuration, parseDuration } from '../model/quantity.ts';
import { path } from './client.ts';
import type { Session } from './main.ts';
import { type Column, formatFacts, formatTable } from './output.ts';
import { linkColumns } from './proxy-link-commands.ts';
import { routeColumns } from './proxy-route-commands.ts';

const columns: readonly Column<ServiceView>[] = [
  { title: 'NAME', value: (service) => service.name },
  { title: 'CONTAINERS', value: healthOf },
  { title: 'NODES', value: (service) => service.nodes.join(',') || '-' },
  { title: 'ROUTES', value: (service) => String(service.routes), right: true },
  { title: 'LINKS', value: (service) => String(service.links), right: true },
  { title: 'STATE', value: (service) => stateOf(service) },
  { title: 'REQUESTS', value: ({ inFlight }) => countOr(inFlight?.requests), right: true },
  { title: 'TUNNELS', value: ({ inFlight }) => countOr(inFlight?.tunnels), right: true },
  { title: 'HELD', value: ({ inFlight }) => countOr(inFlight?.held), right: true },
];

const containerColumns: readonly Column<ServiceDetailView['containers'][number]>[] = [
  { title: 'CONTAINER', value: (container) => container.name },
  { title: 'NODE', value: (container) => container.node },
  { title: 'STATE', value: ({ state, condition = state }) => condition },
  { title: 'ADDRESS', value: (container) => container.address ?? '-' },
];

const drainedColumns: readonly Column<DrainedNodeView>[] = [
  { title: 'NODE', value: (node) => node.name },
  { title: 'REQUESTS LEFT', value: (node) => String(node.requests), right: true },
  { title: 'TUNNELS LEFT', value: (node) => String(node.tunnels), right: true },
  { title: 'TUNNELS CLOSED', value: (node) => String(node.tunnelsClosed), right: true },
];

/** `verb`: what a node has done. */
function nodeColumns(verb: string): readonly Column<PausedNodeView>[] {
  return [
    { title: 'NODE', value: (node) => node.name },
    { title: verb, value: (node) => (node.done ? 'yes' : 'no') },
    { title: 'REASON', value: (node) => node.problem ?? '' },
  ];
}

const pauseHelp = `
New requests and connections of a paused service wait, on every node, until it is released; those that run go on.
At most 10,000 wait on a node, each for at most 30s; a pause ends by itself after its time.`;

export function addServiceCommands(program: Command, session: () => Session): void {
  const service = program.command('service').description('what routes and links lead to; pause, drain, release');

  service
    .command('ls')
    .description('list the services; requests, tunnels and held ones are those of this node')
    .action(async () => {
      const { proxy, print } = session();
      const services = await proxy.get('/v1/services', z.array(serviceView));
      print(services, () => formatTable(services, columns));
    });

  service
    .command('inspect')
    .description('everything about a service: containers, routes, links, its pause')
    .argument('<name>')
    .action(async (name: string) => {
      const { proxy, print } = session();
      const found = await proxy.get(path`/v1/services/${name}`, serviceDetailView);
      print(found, () => formatDetail(found));
    });

  service
    .command('pause')
    .description('hold what is new for a service, on all nodes')
    .argument('<name>')
    .option('--for <duration>', 'after which the pause ends by itself, 1s to 2m', '30s')
    .option('--wait <duration>', 'how long the nodes may take to say that they hold it', '10s')
    .option('--keep', 'keep a pause that not all nodes hold in time')
    .option('--extend', 'in place of the pause that there is, without a gap')
    .addHelpText('after', pauseHelp)
    .action(async (name: string, options: PauseOptions) => {
      const { proxy, print } = session();
      const body = {
        forMs: parseDuration(options.for),
        waitMs: parseDuration(options.wait),
        keep: options.keep === true,
        extend: options.extend === true,
      };
      const paused = await proxy.send('POST', path`/v1/services/${name}/pause`, body, pauseView);
      const end = timeOf(paused.untilMs);
      print(
        paused,
        () =>
          `${paused.service} is paused until ${end}; "flockctl service release ${paused.service}" ends that.\n\n${formatTable(paused.nodes, nodeColumns('HOLDS'))}`,
      );
    });

  service
    .command('drain')
    .description('wait for what a paused service is doing, then end its long-lived connections')
    .argument('<name>')
    .option('--for <duration>', 'how long to wait, up to the end of the pause', '10s')
    .addOption(
      new Option('--tunnels <how>', 'wait for long-lived connections and end them then, or leave them alone')
        .choices(['wait', 'leave'])
        .default('wait'),
    )
    .action(async (name: string, options: { readonly for: string; readonly tunnels: 'wait' | 'leave' }) => {
      const { proxy, print } = session();
      const body = { forMs: parseDuration(options.for), tunnels: options.tunnels };
      const drained = await proxy.send('POST', path`/v1/services/${name}/drain`, body, drainView);
      print(drained, () => `${describeDrain(drained.nodes)}\n\n${formatTable(drained.nodes, drainedColumns)}`);
    });

  service
    .command('release')
    .description('end the pause: what waits is served, in order')
    .argument('<name>')
    .option('--wait <duration>', 'how long the nodes may take to say that they have', '10s')
    .action(async (name: string, options: { readonly wait: string }) => {
      const { proxy, print } = session();
      const body = { waitMs: parseDuration(options.wait) };
      const released = await proxy.send('POST', path`/v1/services/${name}/release`, body, releaseView);
      print(released, () =>
        released.wasPaused
          ? `${released.service} is released.\n\n${formatTable(released.nodes, nodeColumns('RELEASED'))}`
          : `${released.service} was not paused (any more).\n`,
      );
    });
}

type PauseOptions = { readonly for: string; readonly wait: string; readonly keep?: true; readonly extend?: true };

/** Pure. */
export function describeDrain(nodes: readonly DrainedNodeView[]): string {
  const sum = (count: (node: DrainedNodeView) => number) => nodes.reduce((total, node) => total + count(node), 0);
  const requests = sum((node) => node.requests);
  const tunnels = sum((node) => node.tunnels);
  if (requests + tunnels === 0) return 'Nothing is left in flight.';
  const left = requests === 0 ? '' : ` ${requests} ${requests === 1 ? 'request runs' : 'requests run'} on.`;
  return `The time is over: ${tunnels} long-lived ${tunnels === 1 ? 'connection was' : 'connections were'} left, ${sum((node) => node.tunnelsClosed)} ended.${left}`;
}

/** Pure. */
export function formatDetail(detail: ServiceDetailView): string {
  const { service, containers, routes, links, paused, drained, problems } = detail;
  const parts = [
    formatFacts({
      Name: service.name,
      State: stateOf(service),
      Containers: `${healthOf(service)} healthy${service.stateful ? ', stateful: one at a time' : ''}`,
      Balance: service.balance,
      'In flight here':
        service.inFlight === null
          ? 'unknown'
          : `${service.inFlight.requests} requests, ${service.inFlight.tunnels} tunnels, ${service.inFlight.held} held`,
    }),
    table(containers, containerColumns),
    table(routes, routeColumns),
    table(links, linkColumns),
    table(paused, nodeColumns('HOLDS')),
    table(drained, drainedColumns),
    problems.map((problem) => `! ${problem}\n`).join(''),
  ];
  return parts.filter((part) => part !== '').join('\n');
}

function table<Row>(rows: readonly Row[], its: readonly Column<Row>[]): string {
  return rows.length === 0 ? '' : formatTable(rows, its);
}

function stateOf({ pause, containers }: ServiceView): string {
  if (pause !== null) return `paused, ${formatDuration(secondsUntil(pause.untilMs) * 1000)} left`;
  if (containers.healthy > 0) return 'serving';
  return containers.starting > 0 ? 'starting' : 'no healthy container';
}

function secondsUntil(ms: number): number {
  return Math.max(0, Math.ceil((ms - Date.now()) / 1000));
}

function healthOf({ containers }: ServiceView): string {
  return `${containers.healthy}/${containers.total}`;
}

function countOr(count: number | undefined): string {
  return count === undefined ? '-' : String(count);
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString().slice(11, 19).concat(' UTC');
}
