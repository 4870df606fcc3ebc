import type { Command } from 'commander';
import { z } from 'zod';
import { type NodeView, nodeView } from '../model/api.ts';
import { formatPeerAddress } from '../model/identity.ts';
import { anything, path } from './client.ts';
import { addDrainCommands } from './drain-commands.ts';
import type { Session } from './main.ts';
import { type Column, formatTable } from './output.ts';
import { sizeOr } from './volume-commands.ts';

const columns: readonly Column<NodeView>[] = [
  { title: 'NAME', value: (node) => node.name },
  { title: 'STATE', value: stateOf },
  { title: 'ADDRESS', value: (node) => formatPeerAddress(node) },
  { title: 'POOL', value: (node) => node.format },
  { title: 'FREE', value: (node) => sizeOr(node.freeBytes, '-'), right: true },
  { title: 'SIZE', value: (node) => sizeOr(node.sizeBytes, '-'), right: true },
  { title: 'VOLUMES', value: (node) => String(node.volumes), right: true },
  { title: 'COPIES', value: (node) => String(node.copies), right: true },
  { title: 'VERSION', value: (node) => node.version ?? '-' },
  { title: 'LABELS', value: (node) => labels(node) },
];

type RemoveFlags = { readonly force?: true; readonly lost?: true; readonly giveUp: readonly string[] };

export function addNodeCommands(program: Command, session: () => Session): void {
  const node = program.command('node').description('the nodes of the cluster');

  node
    .command('ls')
    .description('list the nodes')
    .action(async () => {
      const { client, print } = session();
      const nodes = await client.get('/v1/nodes', z.array(nodeView));
      print(nodes, () => formatTable(nodes, columns));
    });

  node
    .command('label')
    .description('set and remove labels of a node')
    .argument('<name>')
    .argument('<label...>', 'KEY=VALUE, or KEY- to remove it')
    .action((name: string, words: readonly string[]) => change(session(), name, { labels: words }));

  node
    .command('cordon')
    .description('give a node no new volumes and copies; what it has stays')
    .argument('<name>')
    .action((name: string) => change(session(), name, { cordoned: true }));

  node
    .command('uncordon')
    .description('undo cordon')
    .argument('<name>')
    .action((name: string) => change(session(), name, { cordoned: false }));

  addDrainCommands(node, session);

  node
    .command('rm')
    .description('take a node that is down and owns no volumes out of the cluster')
    .argument('<name>')
    .option('--force', 'also if it is to hold copies: they are made elsewhere then')
    .option('--lost', 'it will never come back: give up its trash and the volumes that no other node has')
    .option(
      '--give-up <volume>',
      'also this volume of it, whose copies can not be brought up: they are destroyed (repeatable)',
      (volume: string, before: readonly string[]) => [...before, volume],
      [],
    )
    .action(async (name: string, { force, lost, giveUp }: RemoveFlags) => {
      const { client, print } = session();
      const body = { force: force === true, lost: lost === true, giveUp };
      await client.send('DELETE', path`/v1/nodes/${name}`, body, anything);
      print({ removed: name }, () => `${name}\n`);
    });
}

async function change({ client, print }: Session, name: string, body: unknown): Promise<void> {
  const changed = await client.send('PATCH', path`/v1/nodes/${name}`, body, nodeView);
  print(changed, () => formatTable([changed], columns));
}

function stateOf({ alive, controller, poolLost, cordoned, draining }: NodeView): string {
  const life = alive ? (controller ? 'up' : 'up, no controller') : 'DOWN';
  return `${life}${poolLost ? ', POOL LOST' : ''}${draining ? ', draining' : cordoned ? ', cordoned' : ''}`;
}

function labels(node: NodeView): string {
  const words = Object.entries(node.labels).map(([key, value]) => `${key}=${value}`);
  return words.length === 0 ? '-' : words.join(',');
}
