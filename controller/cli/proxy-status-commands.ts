import type { Command } from 'commander';
import { type ProxyStatusView, proxyStatusView } from '../model/proxy-api.ts';
import { formatAge } from '../model/quantity.ts';
import type { Session } from './main.ts';
import { type Column, formatTable } from './output.ts';

const columns: readonly Column<ProxyStatusView['nodes'][number]>[] = [
  { title: 'NODE', value: (node) => node.name },
  { title: 'STATE', value: (node) => (node.alive ? (node.proxy === null ? 'NO PROXY' : 'up') : 'DOWN') },
  { title: 'ADDRESS', value: ({ proxy }) => proxy?.address ?? '-' },
  { title: 'VERSION', value: ({ proxy }) => proxy?.version ?? '-' },
  {
    title: 'UP',
    value: ({ proxy }) => (proxy === null ? '-' : formatAge(Date.now() - proxy.startedAtMs)),
    right: true,
  },
  { title: 'PAUSES', value: ({ proxy }) => (proxy === null ? '-' : String(proxy.pauses)), right: true },
  { title: 'PROBLEMS', value: ({ proxy }) => (proxy === null ? '-' : String(proxy.problems.length)), right: true },
];

export function addProxyStatusCommands(program: Command, session: () => Session): void {
  program
    .command('proxy')
    .description('the proxies of all nodes')
    .command('status')
    .description('how they are, and which labels can not be used')
    .action(async () => {
      const { proxy, print } = session();
      const status = await proxy.get('/v1/proxies', proxyStatusView);
      print(status, () => formatStatus(status));
    });
}

/** Pure. */
export function formatStatus({ nodes, problems }: ProxyStatusView): string {
  const ofNodes = nodes.flatMap(({ name, proxy }) =>
    (proxy?.problems ?? []).map(({ where, text }) => `${name}: ${where}: ${text}\n`),
  );
  const others = problems.map(({ where, text }) => `${where}: ${text}\n`);
  const list = [...ofNodes, ...others];
  return `${formatTable(nodes, columns)}${list.length === 0 ? '' : `\n${list.join('')}`}`;
}
