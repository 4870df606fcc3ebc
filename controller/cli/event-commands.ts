import { type Command, InvalidArgumentError } from 'commander';
import { z } from 'zod';
import { eventsView, type WorkloadView, workloadView } from '../model/controller-api.ts';
import type { EventDoc } from '../model/events.ts';
import { insist } from './following.ts';
import type { Session } from './main.ts';
import { type Column, formatTable } from './output.ts';

const waitMs = 20_000;
const kindCharacters = 16;

const workloadColumns: readonly Column<WorkloadView>[] = [
  { title: 'NAME', value: (workload) => workload.name },
  { title: 'SERVICE', value: (workload) => workload.service ?? '-' },
  { title: 'NODE', value: (workload) => workload.node },
  { title: 'WANTED', value: (workload) => workload.wanted },
  { title: 'FAILOVER', value: (workload) => workload.failover },
  { title: 'VOLUMES', value: (workload) => workload.volumes.join(',') || '-' },
  { title: 'MOVE', value: (workload) => workload.move ?? '-' },
  { title: 'STAYS BECAUSE OF', value: (workload) => workload.obstacles.join('; ') },
];

export function addEventCommands(program: Command, session: () => Session): void {
  program
    .command('workload')
    .description('containers that flock looks after')
    .command('ls')
    .description('list them: where each is to be, and what keeps it from being made elsewhere')
    .action(async () => {
      const { controller, print } = session();
      const found = await controller.get('/v1/workloads', z.array(workloadView));
      print(found, () => formatTable(found, workloadColumns));
    });

  program
    .command('events')
    .description('what happened in the cluster: moves, failovers, stashes, containers started again')
    .option('--limit <number>', 'so many of the newest', toLimit, 50)
    .option('--follow', 'and what happens from now on')
    .action(async ({ limit, follow }: { readonly limit: number; readonly follow?: true }) => {
      const { controller, print } = session();
      let { events, cursor } = await controller.get(`/v1/events?limit=${limit}`, eventsView);
      if (follow !== true) {
        print(events, () => events.map(formatEvent).join(''));
        return;
      }
      for (;;) {
        for (const event of events) print(event, () => formatEvent(event));
        const query = new URLSearchParams({ after: cursor, waitMs: String(waitMs) });
        ({ events, cursor } = await insist(() => controller.get(`/v1/events?${query}`, eventsView)));
      }
    });
}

function toLimit(text: string): number {
  if (/^[1-9]\d{0,3}$/.test(text) && Number(text) <= 1000) return Number(text);
  throw new InvalidArgumentError('use a number from 1 to 1000.');
}

/** Pure. */
export function formatEvent({ atMs, node, kind, subject, text }: EventDoc): string {
  const time = new Date(atMs).toISOString().replace('T', ' ').slice(0, 19);
  const said = text.replaceAll(/\s+/g, ' ').trim();
  return `${time}  ${node.padEnd(8)}  ${kind.padEnd(kindCharacters)}  ${said.startsWith(subject) ? said : `${subject}: ${said}`}\n`;
}
