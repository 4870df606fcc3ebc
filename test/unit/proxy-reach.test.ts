import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { Router } from 'express';
import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import { type PeerServer, startPeerServer } from '../../plugin/peer/server.ts';
import { createReach, type Reach } from '../../proxy/documents/reach.ts';
import { log } from '../support/cluster-hosts.ts';
import { makeIdentities } from '../support/peer-pair.ts';
import { until } from '../support/until.ts';

const [n1, n2, n3] = ['n1', 'n2', 'n3'].map(parseNodeName) as [NodeName, NodeName, NodeName];
const at = (port: number) => ({ address: '127.0.0.1', port });

describe('nodes without a session', () => {
  let reach: Reach;
  let changes = 0;
  let stop: AbortController;
  let running: Promise<void>;
  let plugin: PeerServer;
  let still: Server;
  const sockets = new Set<Socket>();

  const startPlugin = (port = 0) =>
    startPeerServer({
      ...{ identity: makeIdentities().two, address: '127.0.0.1', port, handler: Router(), log },
      ...{ join: async () => ({}), isMember: () => false, onData: (socket) => void socket.destroy() },
    });

  beforeEach(async () => {
    plugin = await startPlugin();
    // As the kernel does it for a process that stands still.
    still = createServer((socket) => void sockets.add(socket.on('error', () => {}))).listen(0, '127.0.0.1');
    await once(still, 'listening');
    changes = 0;
    reach = createReach({
      onChange: () => {
        changes += 1;
      },
      everyMs: 20,
    });
    stop = new AbortController();
    running = reach.run(stop.signal);
  });
  afterEach(async () => {
    stop.abort();
    await running;
    await plugin.close();
    for (const socket of sockets) socket.destroy();
    still.close();
  });

  it('answer as long as their plugins do, and count as answering until they have not', async function () {
    this.timeout(20_000);
    const free = await startPlugin();
    await free.close();
    const { port: stillPort } = still.address() as AddressInfo;
    reach.follow(
      new Map([n1, n2, n3].map((node, index) => [node, at([plugin.port, stillPort, free.port][index] ?? 0)])),
    );
    assert.deepEqual([n1, n2, n3].map(reach.answers), [true, true, true]);
    await until('nobody is there', 5_000, () => !reach.answers(n3) || undefined);
    await until('it says nothing', 5_000, () => !reach.answers(n2) || undefined);
    assert.ok(reach.answers(n1));
    assert.equal(changes, 2);

    const again = await startPlugin(free.port);
    await until('it is back', 5_000, () => reach.answers(n3) || undefined);
    await again.close();
    await until('it is gone', 5_000, () => !reach.answers(n3) || undefined);
    reach.follow(new Map([[n1, at(plugin.port)]]));
    assert.deepEqual(
      [n1, n2, n3].map(reach.answers),
      [true, false, false],
      'who is not asked has a session, or is gone',
    );
    reach.follow(new Map([[n2, at(stillPort)]]));
    assert.ok(reach.answers(n2), 'its session has just ended');
  });
});
