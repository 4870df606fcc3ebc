import { createInterface } from 'node:readline';
import { parseNodeName } from '../../controller/model/names.ts';
import { createCommands } from '../../plugin/exec.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import type { ProxyRecords } from '../../proxy/model/records.ts';
import { buildTable } from '../../proxy/model/table.ts';
import { createKernelLayer } from '../../proxy/stack/kernel/kernel.ts';
import type { LocalPlace } from '../../proxy/stack/kernel/links.ts';
import { removeKernelLayer } from '../../proxy/stack/kernel/remove.ts';

/** The kernel layer as a process of its own, in whose network it is started; asked by JSON lines. */
const [folder = '', self = ''] = process.argv.slice(2);
let containers: ReadonlyMap<string, LocalPlace> = new Map();

const parts = { commands: createCommands(), folder, hostRoot: '' };
const layer = createKernelLayer({ ...parts, containers: () => containers, checkMs: 300 });

type Asked = {
  readonly records: ProxyRecords;
  readonly containers: Readonly<Record<string, LocalPlace>>;
  readonly service: string;
};

const operations: Readonly<Record<string, (asked: Asked) => unknown>> = {
  containers: (asked) => {
    containers = new Map(Object.entries(asked.containers));
  },
  apply: async ({ records }) => {
    const start = performance.now();
    await layer.apply(buildTable(records, parseNodeName(self)));
    return performance.now() - start;
  },
  ready: () => null,
  problems: () => [...layer.problems()],
  inFlight: ({ service }) => layer.inFlight(parseServiceName(service)),
  cut: ({ service }) => layer.cutTunnels(parseServiceName(service)),
  remove: () => removeKernelLayer({ ...parts, containers }),
  close: () => layer.close(),
};

createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, operation, ...asked } = JSON.parse(line);
  try {
    const work = operations[operation];
    if (work === undefined) throw new Error(`no operation ${operation}`);
    const answer = await work(asked);
    console.log(JSON.stringify({ id, answer: answer ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ id, failure: String(error) }));
  }
});
process.stdin.on('end', () => process.exit());
