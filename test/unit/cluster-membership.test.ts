import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import { fingerprintOf, keyFingerprintOf, makeAuthority, makeKey } from '../../controller/cluster/ca.ts';
import { initCluster, type MemberRequest } from '../../controller/cluster/founding.ts';
import { type AskBody, admit, joinCluster } from '../../controller/cluster/joining.ts';
import { cordonNode, drainNode, labelNode, listNodes } from '../../controller/cluster/membership.ts';
import { type RemovalOptions, removeNode } from '../../controller/cluster/removal.ts';
import { viewStatus } from '../../controller/cluster/status.ts';
import { createToken, formatToken, parseToken, tokenTtlMsDefault } from '../../controller/cluster/tokens.ts';
import { decodeNode, decodeVolume, keys, type VolumeDoc } from '../../controller/model/cluster.ts';
import { parseDatasetId, parseNodeName, parseVolumeName } from '../../controller/model/names.ts';
import { noOptions } from '../../controller/model/options.ts';
import type { Store } from '../../controller/store/store.ts';
import { askMember } from '../../plugin/peer/client.ts';
import {
  type ClusterHost,
  type ClusterHosts,
  createClusterHosts,
  identityOf,
  makeAlive,
} from '../support/cluster-hosts.ts';
import { refuses, rejects } from '../support/refuses.ts';

let hosts: ClusterHosts;
beforeEach(() => {
  hosts = createClusterHosts();
});
afterEach(() => hosts.dispose());

const remove = (name: string, options: Partial<RemovalOptions> = {}) =>
  removeNode(hosts.store, name, { force: false, lost: false, giveUp: [], ...options }, 1);

let port = 5000;
function wanted(name: string): MemberRequest {
  port += 1;
  const store = { storeAddress: 'http://127.0.0.1:8500', storeToken: null };
  return { name: parseNodeName(name), address: '10.0.0.1', port, labels: { dc: 'a' }, ...store };
}

async function init(host: ClusterHost, name: string): Promise<void> {
  await host.deps.joined(await initCluster(host.deps, { ...wanted(name), profile: 'default' }));
}

async function tokenOf(member: ClusterHost, uses = 1): Promise<string> {
  const request = { uses, ttlMs: tokenTtlMsDefault };
  const { text } = await createToken(hosts.store, member.identity().caCertificate, request, hosts.nowMs);
  return text;
}

async function join(host: ClusterHost, member: ClusterHost, token: string, name: string): Promise<void> {
  const request = { ...wanted(name), member: member.address(), token };
  await host.deps.joined(await joinCluster(host.deps, request, askMember));
}

async function clusterOfTwo(): Promise<readonly [ClusterHost, ClusterHost]> {
  const [first, second] = [await hosts.add(), await hosts.add()];
  await init(first, 'node-1');
  await join(second, first, await tokenOf(first), 'node-2');
  return [first, second];
}

const names = async () => (await listNodes(hosts.store)).map(({ name }) => name);

describe('making a cluster', () => {
  it('writes cluster, node and identity', async () => {
    const host = await hosts.add();
    assert.deepEqual(await viewStatus(null), { cluster: null, node: null, store: null, nodes: null, volumes: null });
    await init(host, 'node-1');
    const identity = await identityOf(host);
    assert.deepEqual(identity, host.identity());
    const [node] = await listNodes(hosts.store);
    assert.deepEqual([node?.name, node?.alive, node?.labels, node?.format], ['node-1', false, { dc: 'a' }, 'btrfs']);
    assert.ok(!(await readdir(host.deps.folder)).includes('founding.json'));
  });

  it('is refused where there is one', async () => {
    const [first, second] = [await hosts.add(), await hosts.add()];
    await init(first, 'node-1');
    await rejects(init(first, 'node-3'), 'in-cluster');
    const error = await rejects(init(second, 'node-2'), 'in-cluster');
    assert.match(error.message, /flockctl join/);
    assert.equal(await identityOf(second), null);
    assert.deepEqual(await names(), ['node-1']);
  });

  it('succeeds for one of two that try at once', async () => {
    const both = [await hosts.add(), await hosts.add()];
    const results = await Promise.allSettled(both.map((host, index) => init(host, `node-${index}`)));
    assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1);
    assert.equal((await names()).length, 1);
  });

  it('is finished by doing it again when the answer of the store was lost', async () => {
    const host = await hosts.add();
    const { openStore } = host.deps;
    const failing: typeof openStore = async (...args) => {
      const store = await openStore(...args);
      const transact: typeof store.transact = async (operations) => {
        await store.transact(operations);
        throw new Error('gone');
      };
      return { ...store, transact };
    };
    const request = { ...wanted('node-1'), profile: 'fast' } as const;
    await assert.rejects(initCluster({ ...host.deps, openStore: failing }, request), /gone/);
    assert.equal(await identityOf(host), null);
    const identity = await initCluster(host.deps, request);
    assert.deepEqual(await identityOf(host), identity);
    assert.deepEqual(await names(), ['node-1']);
  });
});

describe('joining a cluster', () => {
  it('makes a member with the same authority, and a certificate of its own', async () => {
    const [first, second] = await clusterOfTwo();
    assert.deepEqual(await identityOf(second), second.identity());
    assert.equal(second.identity().caKey, first.identity().caKey);
    assert.notEqual(second.identity().key, first.identity().key);
    assert.deepEqual(await names(), ['node-1', 'node-2']);
  });

  it('takes one use of the token, and another only if there is one', async () => {
    const [first, second, third, fourth] = [await hosts.add(), await hosts.add(), await hosts.add(), await hosts.add()];
    await init(first, 'node-1');
    const token = await tokenOf(first, 2);
    await join(second, first, token, 'node-2');
    await join(third, second, token, 'node-3');
    const error = await rejects(join(fourth, first, token, 'node-4'), 'token-invalid');
    assert.match(error.message, /used up/);
    assert.equal(await identityOf(fourth), null);
    assert.deepEqual(await names(), ['node-1', 'node-2', 'node-3']);
  });

  it('gives the last use to one of many that join at once', async () => {
    const first = await hosts.add();
    await init(first, 'node-1');
    const token = await tokenOf(first, 2);
    const others = await Promise.all(Array.from({ length: 5 }, () => hosts.add()));
    const results = await Promise.allSettled(others.map((host, index) => join(host, first, token, `new-${index}`)));
    assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 2);
    for (const result of results) if (result.status === 'rejected') assert.equal(result.reason.code, 'token-invalid');
    assert.equal((await names()).length, 3);
  });

  it('refuses tokens that are expired, made up, mangled or of another cluster', async () => {
    const [first, second] = [await hosts.add(), await hosts.add()];
    await init(first, 'node-1');
    const token = await tokenOf(first);
    const parsed = parseToken(token);
    const madeUp = formatToken({ ...parsed, secret: 'ab'.repeat(16) });
    assert.match((await rejects(join(second, first, madeUp, 'node-2'), 'token-invalid')).message, /not known/);
    const foreign = formatToken({ ...parsed, caFingerprint: fingerprintOf(makeAuthority('ff', 0).certificate) });
    assert.match((await rejects(join(second, first, foreign, 'node-2'), 'token-invalid')).message, /another cluster/);
    hosts.nowMs += tokenTtlMsDefault;
    assert.match((await rejects(join(second, first, token, 'node-2'), 'token-invalid')).message, /expired/);
    for (const text of ['', 'flock1-', token.slice(0, -1), `${token}A`, token.replace('flock1', 'flock2'), ` ${token}`])
      refuses(() => parseToken(text), 'token-invalid');
    assert.deepEqual(await names(), ['node-1']);
    await tokenOf(first);
    assert.equal((await hosts.store.list(`${keys.tokens}/`, { fresh: true })).length, 1, 'the expired one is gone');
  });

  it('keeps no secret in the store', async () => {
    const first = await hosts.add();
    await init(first, 'node-1');
    const { secret } = parseToken(await tokenOf(first));
    for (const { key, value } of hosts.shared.entries()) {
      assert.ok(!`${key} ${value}`.includes(secret) && !value.includes('PRIVATE KEY'), key);
    }
  });

  it('refuses names and addresses that are taken, and keeps the token', async () => {
    const [first, second] = await clusterOfTwo();
    const third = await hosts.add();
    const token = await tokenOf(second);
    await rejects(join(third, first, token, 'node-2'), 'node-exists');
    const taken = { ...wanted('node-3'), port: first.identity().port, member: first.address(), token };
    await rejects(joinCluster(third.deps, taken, askMember), 'node-exists');
    await join(third, first, token, 'node-3');
    await rejects(join(third, first, token, 'node-4'), 'in-cluster');
  });

  it('can be asked again when the answer was lost, by the same host only', async () => {
    const [first, second, third] = [await hosts.add(), await hosts.add(), await hosts.add()];
    await init(first, 'node-1');
    const token = await tokenOf(first);
    const losing = async (...args: Parameters<typeof askMember>) => {
      await askMember(...args);
      throw new Error('lost');
    };
    const request = { ...wanted('node-2'), member: first.address(), token };
    await assert.rejects(joinCluster(second.deps, request, losing), /lost/);
    assert.equal(await identityOf(second), null);
    await rejects(join(third, first, token, 'node-2'), 'token-invalid');
    await joinCluster(second.deps, { ...request, address: '10.0.0.9' }, askMember);
    const entry = await hosts.store.get(keys.node(request.name), { fresh: true });
    assert.equal(decodeNode(entry?.value ?? '').address, '10.0.0.9');
  });

  it('does not let a removed node back in with its old token', async () => {
    const first = await hosts.add();
    await init(first, 'node-1');
    const { secret } = parseToken(await tokenOf(first));
    const node = { name: 'node-2', address: '10.0.0.7', port: 4270, labels: {}, format: 'zfs' } as const;
    const body: AskBody = { secret, keyFingerprint: keyFingerprintOf(makeKey()), node };
    await admit(hosts.store, first.identity(), body, hosts.nowMs);
    await remove('node-2');
    await rejects(admit(hosts.store, first.identity(), body, hosts.nowMs), 'token-invalid');
  });

  it('checks what a host says of itself', async () => {
    const first = await hosts.add();
    await init(first, 'node-1');
    const { secret } = parseToken(await tokenOf(first));
    const node = { name: 'node-2', address: '10.0.0.7', port: 4270, labels: {}, format: 'zfs' } as const;
    const body: AskBody = { secret, keyFingerprint: 'ab'.repeat(32), node };
    const ask = (bad: unknown) => admit(hosts.store, first.identity(), bad, hosts.nowMs);
    await rejects(ask({ ...body, node: { ...node, name: '../x' } }), 'invalid-name');
    await rejects(ask({ ...body, node: { ...node, address: 'a]:1' } }), 'invalid-option');
    await rejects(ask({ ...body, node: { ...node, labels: { a: 'b=c' } } }), 'invalid-option');
    await rejects(ask({ ...body, secret: '' }), 'invalid-request');
    await rejects(ask(null), 'invalid-request');
    assert.deepEqual(await names(), ['node-1']);
  });

  it('tells nothing to a host that is no member of the cluster in the store', async () => {
    const [first, second] = [await hosts.add(), await hosts.add()];
    await init(first, 'node-1');
    const token = await tokenOf(first);
    let heard = 0;
    const impostor = createServer((socket) => {
      socket.on('data', (chunk) => {
        heard += chunk.includes(parseToken(token).secret) ? 1 : 0;
        socket.destroy();
      });
      socket.on('error', () => undefined);
    }).listen(0, '127.0.0.1');
    await once(impostor, 'listening');
    const at = impostor.address();
    assert.ok(typeof at === 'object' && at !== null);
    const request = { ...wanted('node-2'), member: { address: '127.0.0.1', port: at.port }, token };
    await rejects(joinCluster(second.deps, request, askMember), 'node-unreachable');
    impostor.close();
    assert.equal(heard, 0);
  });

  it('says when the store has no cluster or does not answer', async () => {
    const [first, second] = [await hosts.add(), await hosts.add()];
    const authority = makeAuthority('ff', hosts.nowMs);
    const token = formatToken({ secret: 'ab'.repeat(16), caFingerprint: fingerprintOf(authority.certificate) });
    const request = { ...wanted('node-2'), member: { address: '127.0.0.1', port: 1 }, token };
    await rejects(joinCluster(second.deps, request, askMember), 'no-cluster');
    await init(first, 'node-1');
    const at = { ...request, token: await tokenOf(first) };
    await rejects(joinCluster(second.deps, at, askMember), 'node-unreachable');
  });
});

function volume(name: string, owner: string, replicas: readonly string[]): VolumeDoc {
  return {
    id: parseDatasetId(`${name}.00000000`),
    revision: 1,
    name: parseVolumeName(name),
    createdAtMs: 0,
    options: noOptions,
    owner: parseNodeName(owner),
    epoch: 1,
    replicas: replicas.map(parseNodeName),
    trashed: null,
  };
}

async function put(doc: VolumeDoc): Promise<void> {
  await hosts.store.transact([{ kind: 'set', key: keys.volume(doc.id), value: JSON.stringify(doc) }]);
}

describe('nodes', () => {
  it('are listed with what is known of them', async () => {
    await clusterOfTwo();
    await makeAlive(hosts.store, 'node-2');
    const space = JSON.stringify({ sizeBytes: 10, freeBytes: 5 });
    await hosts.store.transact([{ kind: 'set', key: keys.space(parseNodeName('node-2')), value: space }]);
    await put(volume('db', 'node-2', ['node-1']));
    const [one, two] = await listNodes(hosts.store);
    assert.deepEqual([one?.alive, one?.version, one?.freeBytes, one?.volumes, one?.copies], [false, null, null, 0, 1]);
    assert.deepEqual([two?.alive, two?.version, two?.freeBytes, two?.volumes, two?.copies], [true, '1.0.0', 5, 1, 0]);
  });

  it('are drained, which leaves a cordon as it is, and know nothing of it in documents of before', async () => {
    await clusterOfTwo();
    const one = async () => (await listNodes(hosts.store))[0];
    await drainNode(hosts.store, 'node-1', true);
    assert.deepEqual([(await one())?.draining, (await one())?.cordoned], [true, false]);
    await drainNode(hosts.store, 'node-1', false);
    assert.deepEqual([(await one())?.draining, (await one())?.cordoned], [false, false]);
    await cordonNode(hosts.store, 'node-1', true);
    for (const draining of [true, false]) {
      await drainNode(hosts.store, 'node-1', draining);
      assert.deepEqual([(await one())?.draining, (await one())?.cordoned], [draining, true]);
    }
    await cordonNode(hosts.store, 'node-1', false);
    await rejects(drainNode(hosts.store, 'node-9', true), 'node-not-found');
    const entry = await hosts.store.get(keys.node(parseNodeName('node-1')));
    const { draining: _draining, ...old } = JSON.parse(entry?.value ?? '{}');
    assert.equal(decodeNode(JSON.stringify(old)).draining, false);
  });

  it('are labelled and cordoned', async () => {
    await clusterOfTwo();
    await Promise.all([
      labelNode(hosts.store, 'node-1', { rack: 'r7', dc: null }),
      cordonNode(hosts.store, 'node-1', true),
      labelNode(hosts.store, 'node-1', { disk: 'ssd' }),
    ]);
    const [one] = await listNodes(hosts.store);
    assert.deepEqual([one?.labels, one?.cordoned], [{ disk: 'ssd', rack: 'r7' }, true]);
    await cordonNode(hosts.store, 'node-1', false);
    assert.equal((await listNodes(hosts.store))[0]?.cordoned, false);
    await rejects(labelNode(hosts.store, 'node-9', {}), 'node-not-found');
    await rejects(cordonNode(hosts.store, 'Node', true), 'invalid-name');
  });

  it('are removed only when they are down and nothing needs them', async () => {
    await clusterOfTwo();
    const session = await makeAlive(hosts.store, 'node-2');
    await rejects(remove('node-9', { force: true }), 'node-not-found');
    assert.match((await rejects(remove('node-2', { force: true }), 'node-exists')).message, /is alive/);
    await hosts.store.destroySession(session);

    await put(volume('db', 'node-2', ['node-1']));
    assert.match((await rejects(remove('node-2', { force: true }), 'volume-in-use')).message, /owns the volume db/);
    await put(volume('db', 'node-1', ['node-2']));
    assert.match((await rejects(remove('node-2', { force: true }), 'volume-in-use')).message, /last copy/);
    await makeAlive(hosts.store, 'node-1');
    assert.match((await rejects(remove('node-2'), 'volume-in-use')).message, /--force/);
    await remove('node-2', { force: true });
    assert.deepEqual(await names(), ['node-1']);
    assert.equal(await hosts.store.get(keys.alive(parseNodeName('node-2')), { fresh: true }), null);
  });

  it('that are lost for good are removed with what only they had', async () => {
    await clusterOfTwo();
    await makeAlive(hosts.store, 'node-1');
    await put(volume('scratch', 'node-2', []));
    await put({ ...volume('old', 'node-2', ['node-1']), trashed: { removedAtMs: 1, expiresAtMs: 2 } });
    await put(volume('db', 'node-2', ['node-1']));
    await put(volume('other', 'node-1', ['node-2']));
    await hosts.store.transact([
      { kind: 'set', key: keys.name(parseVolumeName('scratch')), value: volume('scratch', 'node-2', []).id },
    ]);
    const left = async () => {
      const entries = await hosts.store.list(`${keys.volumes}/`, { fresh: true });
      return entries.map(({ value }) => decodeVolume(value).name).sort();
    };
    const all = ['db', 'old', 'other', 'scratch'];

    const first = await rejects(remove('node-2', { force: true }), 'volume-in-use');
    assert.match(first.message, /owns the volume db: .*flockctl failover/);
    const second = await rejects(remove('node-2', { lost: true }), 'volume-in-use');
    assert.match(second.message, /owns the volume db: .*--give-up/);
    await rejects(remove('node-2', { giveUp: ['other'] }), 'volume-not-found');
    await rejects(remove('node-2', { giveUp: ['bd'] }), 'volume-not-found');
    await rejects(remove('node-2', { giveUp: ['other'], lost: true }), 'volume-not-found');
    assert.deepEqual(await left(), all);
    await put(volume('db', 'node-1', ['node-2']));
    const third = await rejects(remove('node-2', { force: true }), 'volume-in-use');
    assert.match(third.message, /owns 2 volumes.*scratch.*--lost/);
    assert.deepEqual(await left(), all);

    await put(volume('db', 'node-2', ['node-1']));
    await remove('node-2', { giveUp: ['db'] });
    assert.deepEqual(await left(), ['other']);
    assert.deepEqual(await names(), ['node-1']);
    assert.equal(await hosts.store.get(keys.name(parseVolumeName('scratch')), { fresh: true }), null);
  });

  it('that come back meanwhile keep all that they own', async () => {
    await clusterOfTwo();
    await hosts.store.destroySession(await makeAlive(hosts.store, 'node-2'));
    const docs = ['db', 'scratch'].map((name) => volume(name, 'node-2', name === 'db' ? ['node-1'] : []));
    for (const doc of docs) await put(doc);
    const left = async () => (await hosts.store.list(`${keys.volumes}/`, { fresh: true })).length;
    const options = { force: false, lost: true, giveUp: ['db'] };
    let writes = 0;
    /** It is back before anything was given up, or after the first of the two. */
    const backAt = (count: number): Store => ({
      ...hosts.store,
      async transact(operations) {
        writes += 1;
        if (writes === count) await makeAlive(hosts.store, 'node-2');
        return await hosts.store.transact(operations);
      },
    });
    await rejects(removeNode(backAt(1), 'node-2', options, 1), 'node-exists');
    assert.equal(await left(), 2);

    // Its session is there, whatever its own key says.
    const session = await makeAlive(hosts.store, 'node-2');
    const id = docs[0]?.id ?? ('' as never);
    await hosts.store.transact([{ kind: 'lock', key: keys.volume(id), value: JSON.stringify(docs[0]), session }]);
    await hosts.store.transact([{ kind: 'delete', key: keys.alive(parseNodeName('node-2')) }]);
    await rejects(removeNode(hosts.store, 'node-2', options, 1), 'node-exists');
    assert.equal(await left(), 2);
    await hosts.store.destroySession(session);

    // Without a key of its own, too.
    writes = 0;
    await rejects(removeNode(backAt(2), 'node-2', options, 1), 'node-exists');
    assert.equal(await left(), 1);
  });

  it('are removed by a repetition when the first attempt was cut short', async () => {
    await clusterOfTwo();
    for (const name of ['db', 'other']) await put(volume(name, 'node-2', ['node-1']));
    let writes = 0;
    const store: Store = {
      ...hosts.store,
      transact(operations) {
        writes += 1;
        return writes === 2 ? Promise.reject(new Error('the store is away')) : hosts.store.transact(operations);
      },
    };
    const options = { force: false, lost: true, giveUp: ['db', 'other'] };
    await assert.rejects(removeNode(store, 'node-2', options, 1), /away/);
    await removeNode(hosts.store, 'node-2', options, 1);
    assert.deepEqual(await names(), ['node-1']);
  });

  it('that were removed forget the cluster when they join again', async () => {
    const [first, second] = await clusterOfTwo();
    const old = second.identity();
    await rejects(join(second, first, await tokenOf(first), 'node-2'), 'in-cluster');
    await remove('node-2');
    await join(second, first, await tokenOf(first), 'node-2');
    assert.notEqual(second.identity().key, old.key);
  });
});

describe('the status', () => {
  it('counts nodes and volumes', async () => {
    const [first] = await clusterOfTwo();
    await makeAlive(hosts.store, 'node-1');
    await put(volume('one', 'node-1', ['node-2']));
    await put(volume('two', 'node-2', ['node-1']));
    const status = await viewStatus({ identity: first.identity(), store: hosts.store });
    assert.equal(status.store?.reachable, true);
    assert.deepEqual(status.nodes, { total: 2, up: 1, down: ['node-2'] });
    assert.deepEqual(status.volumes, { total: 2, underReplicated: ['one'], ownerDead: ['two'] });
    const more = await viewStatus({ identity: first.identity(), store: hosts.store }, () => 2);
    assert.deepEqual(more.volumes?.underReplicated, ['one', 'two']);
  });

  it('says that the store does not answer', async () => {
    const [first] = await clusterOfTwo();
    hosts.shared.loseLeader();
    const status = await viewStatus({ identity: first.identity(), store: hosts.store });
    assert.equal(status.cluster?.id, first.identity().clusterId);
    assert.deepEqual([status.store?.reachable, status.nodes], [false, null]);
    hosts.shared.electLeader();
  });
});
