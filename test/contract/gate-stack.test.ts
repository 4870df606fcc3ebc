import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { createSecureContext } from 'node:tls';
import { createGate } from '../../proxy/gate/gate.ts';
import type { ListenerStatus } from '../../proxy/gate/listeners.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import { emptyTable, type Table, type TableService } from '../../proxy/model/table.ts';
import { createStack } from '../../proxy/stack/stack.ts';
import { gateContract } from './gate.ts';
import { switched, upgrade } from './gate-http.ts';
import {
  ask,
  freePort,
  httpBackend,
  open,
  type ProxyUnderTest,
  type StartProxy,
  soon,
  tableOf,
  testCertificate,
} from './gate-support.ts';
import { startHaproxy } from './proxy-haproxy-support.ts';

const applyMsMax = 10_000;

const start: StartProxy = async (limits) => {
  const ends: (() => unknown)[] = [];
  const haproxy = await startHaproxy({ later: (end) => void ends.push(end) }, { limits });
  const context = createSecureContext(testCertificate());
  const certificate = (name: string) => (name === 'test' ? context : null);
  const gate = createGate({ limits, certificate, behind: haproxy.gateFolder });
  const stack = createStack({ gate, layers: [haproxy.layer] });
  let table: Table = emptyTable;
  let pauses = 0;
  const timers = new Set<NodeJS.Timeout>();
  // As the program does while there are problems.
  const retrying = setInterval(() => {
    if (stack.problems().size > 0) void stack.apply(table);
  }, 500);

  async function apply(next: Table): Promise<readonly ListenerStatus[]> {
    table = next;
    const endMs = performance.now() + applyMsMax;
    await stack.apply(next);
    // HAProxy may just be starting.
    while (stack.problems().has('layer haproxy') && performance.now() < endMs) {
      await sleep(50);
      await stack.apply(next);
    }
    const problem = stack.problems().get('layer haproxy');
    if (problem !== undefined) throw new Error(`${problem}\n${haproxy.output()}`);
    return status();
  }
  const status = (): readonly ListenerStatus[] =>
    [...table.listeners.keys()].map((key) => {
      const problem = stack.problems().get(key);
      return problem === undefined ? { key, state: 'listening' } : { key, state: 'failed', problem };
    });
  /** What a table says of one service, said by the next one. */
  const change = (name: string, changes: Partial<TableService>) => {
    gate.inFlight(name);
    const services = new Map(
      [...table.services].map(([key, service]) => [key, key === name ? { ...service, ...changes } : service]),
    );
    return apply({ ...table, services });
  };

  const proxy: ProxyUnderTest = {
    apply,
    status,
    async pause(name, { deadlineMs }) {
      pauses += 1;
      await change(name, { pause: { id: `pause-${pauses}`, untilMs: Date.now() + deadlineMs, drain: null } });
      // As the program does: a pause that is over is not in its next table.
      timers.add(setTimeout(() => void change(name, { pause: null }).catch(() => {}), deadlineMs));
    },
    async release(name, upstreams) {
      await change(name, { pause: null, ...(upstreams === null ? {} : { endpoints: upstreams }) });
    },
    inFlight: (name) => stack.inFlight(parseServiceName(name)),
    async drain(name, timeoutMs, tunnels = 'wait') {
      const service = parseServiceName(name);
      const pause = table.services.get(service)?.pause?.id ?? '';
      const drained = await stack.drain(service, pause, timeoutMs, tunnels);
      return { ...(await stack.inFlight(service)), ...drained };
    },
    async dispose() {
      clearInterval(retrying);
      for (const timer of timers) clearTimeout(timer);
      await stack.close(0);
      for (const end of ends.reverse()) await end();
    },
  };
  return proxy;
};

/** HTTP and TLS by a real HAProxy, TCP and all that is paused by the gate: as on a host, but for the kernel's part. */
gateContract('the gate behind HAProxy', start, { rewrites: true });

describe('a drain that leaves tunnels alone', function () {
  this.timeout(30_000);
  const ends: (() => unknown)[] = [];
  afterEach('end what the test has started', async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  it('is over with the last request, in HAProxy and in the gate', async () => {
    const waiting: ServerResponse[] = [];
    const backend = await httpBackend(
      { later: (end) => ends.push(end) },
      (_req, res) => void waiting.push(res),
      (server) =>
        server.on('upgrade', (_req, socket) => {
          socket.write(`${switched}\r\n`);
          socket.pipe(socket);
        }),
    );
    const proxy = await start({});
    ends.push(() => proxy.dispose());
    const [port, tcpPort] = [await freePort(), await freePort()];
    const routes = { [`http://:${port} -> 1`]: 'web', [`tcp://:${tcpPort} -> 1`]: 'web' };
    await proxy.apply(tableOf(routes, { web: [backend.port] }));
    const reply = ask(port);
    const [socket, raw] = [await open(port), await open(tcpPort)];
    let echoed = '';
    socket.on('data', (piece) => {
      echoed += piece;
    });
    socket.write(upgrade('/'));
    await soon('all run', async () => waiting.length === 1 && (await proxy.inFlight('web')).tunnels === 2);
    await proxy.pause('web', { deadlineMs: 60_000 });
    const draining = proxy.drain('web', 20_000, 'leave');
    assert.equal(await Promise.race([draining, sleep(300)]), undefined, 'a request runs');
    waiting[0]?.end('done');
    const { requests, tunnels, tunnelsClosed } = await draining;
    assert.deepEqual([requests, tunnels, tunnelsClosed], [0, 2, 0]);
    assert.equal((await reply).body, 'done');
    socket.write('still there');
    await soon('the tunnel goes on', () => echoed.endsWith('still there'));
    assert.equal(raw.destroyed, false);
    socket.destroy();
    raw.destroy();
  });
});
