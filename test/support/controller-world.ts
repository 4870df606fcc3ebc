import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeAuthority, makeKey } from '../../controller/cluster/ca.ts';
import { saveIdentity } from '../../controller/cluster/files.ts';
import { identify } from '../../controller/cluster/founding.ts';
import { keys, type NodeDoc, type VolumeDoc } from '../../controller/model/cluster.ts';
import { type EventDoc, eventKeys } from '../../controller/model/events.ts';
import { type NodeName, parseDatasetId, parseNodeName, parseVolumeName } from '../../controller/model/names.ts';
import { noOptions } from '../../controller/model/options.ts';
import { decodeWorkload, type WorkloadDoc, workloadKeys } from '../../controller/model/workload.ts';
import type { Clock } from '../../controller/program/home.ts';
import { type ControllerPaths, controllerPathsBelow } from '../../controller/program/paths.ts';
import { run } from '../../controller/program/program.ts';
import type { MemoryStore } from '../../controller/store/memory.ts';
import type { SessionId } from '../../controller/store/store.ts';
import { createFakeEngine, type FakeEngine } from './fake-docker.ts';
import { imageId } from './inspected.ts';
import { createTestStore, silent } from './proxy-fakes.ts';
import { until } from './until.ts';

/** Controllers' programs of several nodes in this process, with Dockers and a store that are fakes; files, sockets and TLS are real. */
export type ControllerNode = {
  readonly name: NodeName;
  readonly docker: FakeEngine;
  readonly paths: ControllerPaths;
  start(): Promise<void>;
  /** As SIGTERM does. */
  stop(): Promise<void>;
  /** Its session ends: for the others it is dead. */
  die(): Promise<void>;
  live(): Promise<void>;
};

export type ControllerWorld = {
  readonly nodes: readonly ControllerNode[];
  readonly store: MemoryStore;
  node(name: string): ControllerNode;
  workload(name: string): Promise<WorkloadDoc | undefined>;
  /** Until the workload of this name is like that. */
  see(name: string, what: string, is: (doc: WorkloadDoc) => boolean): Promise<WorkloadDoc>;
  change(doc: WorkloadDoc): Promise<void>;
  volume(name: string, owner: string, replicas?: readonly string[]): Promise<void>;
  events(): Promise<readonly EventDoc[]>;
  dispose(): Promise<void>;
};

/** Time that passes so much faster, for guards and backoffs. */
export const speed = 40;

const clock: Clock = {
  bootMs: () => performance.now() * speed,
  nowMs: () => Date.now(),
  randomHex: (bytes) => randomBytes(bytes).toString('hex'),
  sleep: (ms, signal) => sleep(ms / speed, undefined, { signal }).catch(() => undefined),
};

export async function createControllerWorld(names: readonly string[]): Promise<ControllerWorld> {
  const root = await mkdtemp(join(tmpdir(), 'flock-controller-'));
  const store = createTestStore();
  const client = store.connect('test');
  const authority = { clusterId: 'c1', ...makeAuthority('c1', Date.now()) };
  const firstPort = 20_000 + Math.floor(Math.random() * 2_000) * 10;
  await client.transact([
    {
      ...{ kind: 'set', key: keys.cluster },
      value: JSON.stringify({ id: 'c1', createdAtMs: 1, profile: 'fast', caCertificate: authority.certificate }),
    },
  ]);

  async function makeNode(text: string, index: number): Promise<ControllerNode> {
    const name = parseNodeName(text);
    const paths = controllerPathsBelow(join(root, text));
    const docker = createFakeEngine();
    const port = firstPort + index * 10;
    const doc: NodeDoc = {
      ...{ name, address: '127.0.0.1', port, labels: {}, cordoned: false, draining: false },
      ...{ format: 'zfs', joinedAtMs: 1 },
    };
    let session: SessionId | null = null;
    let running: { readonly stop: AbortController; readonly done: Promise<void> } | null = null;
    await mkdir(paths.cluster, { recursive: true });
    const request = {
      ...{ name, address: '127.0.0.1', port, labels: {} },
      ...{ storeAddress: 'http://127.0.0.1:8500', storeToken: null },
    };
    await saveIdentity(paths.cluster, identify('c1', authority, makeKey(), request, Date.now()));
    await client.transact([{ kind: 'set', key: keys.node(name), value: JSON.stringify(doc) }]);
    const live = async () => {
      session = await client.createSession({ name: text, ttlMs: 600_000, lockDelayMs: 0 });
      const value = JSON.stringify({ incarnation: '1', version: '1' });
      await client.transact([{ kind: 'lock', key: keys.alive(name), value, session }]);
    };
    await live();
    return {
      name,
      docker,
      paths,
      live,
      async die() {
        if (session !== null) await client.destroySession(session);
      },
      async start() {
        const stop = new AbortController();
        const done = run(
          {
            ...{ paths, parts: [], log: silent, docker, clock, membershipPollMs: 20 },
            web: { host: '127.0.0.1', port: port + 3 },
            dockerTimes: { settleMs: 5, retryMs: 20, fullMs: 60_000 },
            living: { openCluster: () => store.connect(text), peerAddress: '127.0.0.1' },
          },
          stop.signal,
        );
        running = { stop, done };
        await until(`the controller of ${text} is well`, 10_000, async () =>
          (await fetch(`http://127.0.0.1:${port + 3}/healthz`).catch(() => null))?.status === 200 ? true : undefined,
        );
      },
      async stop() {
        running?.stop.abort();
        await running?.done;
        running = null;
      },
    };
  }

  const nodes = await Promise.all(names.map(makeNode));
  const node = (name: string) => {
    const found = nodes.find((one) => one.name === name);
    if (found === undefined) throw new Error(`no node ${name}`);
    return found;
  };
  const workload = async (name: string) => {
    const entries = await client.list(`${workloadKeys.workloads}/`, { fresh: true });
    return entries.map(({ value }) => decodeWorkload(value)).find((doc) => doc.name === name);
  };
  // Where somebody used it, it is there.
  for (const { docker } of nodes.slice(0, 1))
    docker.images.set(imageId, { id: imageId, names: new Set(['postgres:15']) });

  return {
    nodes,
    store,
    node,
    workload,
    see: (name, what, is) =>
      until(`${name} is ${what}`, 10_000, async () => {
        const doc = await workload(name);
        return doc !== undefined && is(doc) ? doc : undefined;
      }),
    async change(doc) {
      await client.transact([{ kind: 'set', key: workloadKeys.workload(doc.id), value: JSON.stringify(doc) }]);
    },
    async volume(name, owner, replicas = []) {
      const doc: VolumeDoc = {
        ...{ id: parseDatasetId(`${name}.0a1b2c3d`), name: parseVolumeName(name), createdAtMs: 1, options: noOptions },
        ...{ owner: parseNodeName(owner), epoch: 1, replicas: replicas.map(parseNodeName), revision: 1, trashed: null },
      };
      await client.transact([{ kind: 'set', key: keys.volume(doc.id), value: JSON.stringify(doc) }]);
    },
    async events() {
      const entries = await client.list(`${eventKeys.events}/`, { fresh: true });
      return entries.map(({ value }) => JSON.parse(value) as EventDoc);
    },
    async dispose() {
      await Promise.all(nodes.map((one) => one.stop()));
      store.close();
      await rm(root, { recursive: true });
    },
  };
}
