import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import express, { Router } from 'express';
import { facts } from '../../controller/cli/cluster-commands.ts';
import { memberView, nodeView, statusView, tokenView } from '../../controller/model/api.ts';
import { formatPeerAddress } from '../../controller/model/identity.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import { answerProblems, noSuchCall } from '../../controller/server/problems.ts';
import { clusterRoutes } from '../../plugin/server/cluster-api.ts';
import { type ClusterHost, type ClusterHosts, createClusterHosts, log, makeAlive } from '../support/cluster-hosts.ts';

let hosts: ClusterHosts;
const servers: Server[] = [];
beforeEach(() => {
  hosts = createClusterHosts();
});
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
  await hosts.dispose();
});

type Api = { readonly host: ClusterHost; ask(method: string, path: string, body?: unknown): Promise<unknown> };

/** A host with the API that flockctl asks. Errors are answered as `{status, code, detail}`. */
async function start(): Promise<Api> {
  const handler = Router();
  handler.get('/v1/hello', (_request, response) => void response.json(`hello ${response.locals['peer']}`));
  const host = await hosts.add(handler);
  const app = express().use(express.json(), clusterRoutes(host.deps), noSuchCall, answerProblems(log, 'api.failed'));
  const server = createServer(app).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  const at = server.address();
  assert.ok(typeof at === 'object' && at !== null);
  return {
    host,
    async ask(method, path, body) {
      const response = await fetch(`http://127.0.0.1:${at.port}${path}`, {
        method,
        ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
      });
      const json = (await response.json()) as object;
      return response.ok ? json : { status: response.status, ...json };
    },
  };
}

function refused(answer: unknown, status: number, code: string): string {
  const { detail, ...rest } = answer as { status: number; code: string; detail: string };
  assert.deepEqual([rest.status, rest.code], [status, code], detail);
  return detail;
}

describe('the API of a cluster', () => {
  it('leads from two hosts to a cluster whose nodes talk to each other', async () => {
    const [one, two] = [await start(), await start()];
    const none = statusView.parse(await one.ask('GET', '/v1/status'));
    assert.equal(none.cluster, null);
    assert.match(facts(none)['Cluster'] ?? '', /flockctl init/);
    refused(await one.ask('GET', '/v1/nodes'), 409, 'no-cluster');
    refused(await one.ask('POST', '/v1/tokens', {}), 409, 'no-cluster');

    const made = memberView.parse(await one.ask('POST', '/v1/cluster', { labels: ['dc=lon'], profile: 'fast' }));
    assert.deepEqual([made.name, made.address, made.port], ['some-host', '127.0.0.1', 4270]);
    const token = tokenView.parse(await one.ask('POST', '/v1/tokens', { uses: 1, ttlMs: 3_600_000 }));
    assert.equal(token.address, '127.0.0.1:4270');
    const join = { name: 'node-2', address: 'node-2.example:9', member: formatPeerAddress(one.host.address()) };
    const joined = memberView.parse(await two.ask('POST', '/v1/cluster/join', { ...join, token: token.token }));
    assert.deepEqual(joined, { clusterId: made.clusterId, name: 'node-2', address: 'node-2.example', port: 9 });
    refused(await two.ask('POST', '/v1/cluster/join', { ...join, token: token.token }), 409, 'in-cluster');

    assert.equal(await two.host.client().call(parseNodeName('some-host'), 'GET', '/v1/hello'), 'hello node-2');
    assert.equal(await one.host.client().call(parseNodeName('node-2'), 'GET', '/v1/hello'), 'hello some-host');

    await makeAlive(hosts.store, 'some-host');
    const nodes = nodeView.array().parse(await two.ask('GET', '/v1/nodes'));
    assert.deepEqual(
      nodes.map(({ name, alive }) => [name, alive]),
      [
        ['node-2', false],
        ['some-host', true],
      ],
    );
    const text = facts(statusView.parse(await two.ask('GET', '/v1/status')));
    assert.equal(text['Cluster'], `${made.clusterId} (profile fast)`);
    assert.equal(text['Nodes'], '1 of 2 up, DOWN: node-2');
  });

  it('changes and removes nodes', async () => {
    const one = await start();
    await one.ask('POST', '/v1/cluster', { name: 'node-1' });
    const changed = await one.ask('PATCH', '/v1/nodes/node-1', { labels: ['rack=r7'], cordoned: true });
    const { labels, cordoned } = nodeView.parse(changed);
    assert.deepEqual([labels, cordoned], [{ rack: 'r7' }, true]);
    const drained = nodeView.parse(await one.ask('PATCH', '/v1/nodes/node-1', { draining: true }));
    assert.deepEqual([drained.draining, drained.cordoned], [true, true]);
    const back = nodeView.parse(await one.ask('PATCH', '/v1/nodes/node-1', { draining: false, cordoned: true }));
    assert.deepEqual([back.draining, back.cordoned], [false, true]);
    refused(await one.ask('PATCH', '/v1/nodes/node-1', { labels: ['Rack=r7'] }), 400, 'invalid-option');
    refused(await one.ask('PATCH', '/v1/nodes/node-1', { label: 'rack=r7' }), 400, 'invalid-request');
    refused(await one.ask('PATCH', '/v1/nodes/node-2', { cordoned: true }), 404, 'node-not-found');
    await makeAlive(hosts.store, 'node-1');
    refused(await one.ask('DELETE', '/v1/nodes/node-1?force=true'), 409, 'node-exists');
    refused(await one.ask('DELETE', '/v1/nodes/node-1', { lost: true, giveUp: ['data'] }), 409, 'node-exists');
    refused(await one.ask('DELETE', '/v1/nodes/node-1', { lots: true }), 400, 'invalid-request');
  });

  it('refuses what it does not understand, and changes nothing', async () => {
    const one = await start();
    refused(await one.ask('POST', '/v1/cluster', { name: 'Node' }), 400, 'invalid-name');
    refused(await one.ask('POST', '/v1/cluster', { address: 'a b' }), 400, 'invalid-option');
    refused(await one.ask('POST', '/v1/cluster', { labels: ['dc'] }), 400, 'invalid-option');
    refused(await one.ask('POST', '/v1/cluster', { store: 'consul' }), 400, 'invalid-option');
    refused(await one.ask('POST', '/v1/cluster', { profile: 'slow' }), 400, 'invalid-request');
    refused(await one.ask('POST', '/v1/cluster', { nmae: 'a' }), 400, 'invalid-request');
    refused(await one.ask('POST', '/v1/cluster/join', { member: 'a', token: 'b' }), 403, 'token-invalid');
    assert.deepEqual(hosts.shared.entries(), []);
    await one.ask('POST', '/v1/cluster', {});
    refused(await one.ask('POST', '/v1/tokens', { uses: 0 }), 400, 'invalid-option');
    refused(await one.ask('POST', '/v1/tokens', { ttlMs: 1 }), 400, 'invalid-option');
  });
});
