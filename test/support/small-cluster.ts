import { randomBytes } from 'node:crypto';
import { type AliveDoc, keys, type NodeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import type { EventKind } from '../../controller/model/events.ts';
import { type NodeName, parseNodeName, parseVolumeName } from '../../controller/model/names.ts';
import { timings } from '../../controller/model/timing.ts';
import { createMemoryStore, type MemoryStore } from '../../controller/store/memory.ts';
import type { Operation, SessionId, Store } from '../../controller/store/store.ts';
import { hostClock } from '../../plugin/boot-clock.ts';
import { type Agent, createAgent } from '../../plugin/cluster/agent.ts';
import type { PeerCalls, Peers, Users } from '../../plugin/cluster/ports.ts';
import { createMemory, type MemoryStorage } from '../../plugin/storage/memory.ts';
import { createMemoryDisk, type MemoryDisk } from '../../plugin/storage/memory-disk.ts';
import type { MemoryStream } from '../../plugin/storage/memory-stream.ts';
import type { Context } from '../../plugin/volumes/context.ts';
import { createVolume } from '../../plugin/volumes/create.ts';
import { mountVolume, unmountVolume } from '../../plugin/volumes/mounts.ts';
import { createFixture, never, type PluginFixture } from './plugin-context.ts';
import { until } from './until.ts';

/** Some nodes with their agents in this process, a store in memory and nothing between them that could break but what a test breaks. */
export type SmallCluster = {
  readonly store: MemoryStore;
  /** To look and write with, beside those of the nodes. */
  readonly client: Store;
  node(name: string): SmallNode;
  /** Called before each stream is sent; a promise holds it up, an error breaks it. */
  onStream: (from: NodeName, to: NodeName) => Promise<void> | void;
  /** Called before each transaction of a node. */
  onTransact: (from: NodeName, operations: readonly Operation[]) => void;
  /** What nodes have told people. */
  readonly told: readonly Told[];
  /** From now on nothing gets to the node or away from it, and its session is over. */
  cutOff(name: string): void;
  dispose(): Promise<void>;
};

export type Told = { readonly node: string; readonly kind: EventKind; readonly subject: string; readonly text: string };

export type SmallNode = {
  readonly name: NodeName;
  readonly agent: Agent;
  readonly context: Context;
  readonly storage: MemoryStorage;
  readonly disk: MemoryDisk;
  readonly fixture: PluginFixture<MemoryStorage>;
  /** Makes a volume as Docker does, without mounting it. */
  create(name: string, options?: Readonly<Record<string, string>>): Promise<void>;
  /** As Docker does for a container, which shows as a holder from then on; answers what ends it. */
  use(name: string): Promise<() => Promise<void>>;
  write(name: string, data: string): Promise<void>;
  read(name: string): Promise<string | null>;
};

const timing = timings.fast;
const waitMs = 15_000;

export async function startSmallCluster(names: readonly string[]): Promise<SmallCluster> {
  const clock = {
    nowMs: () => performance.now(),
    sleep: (ms: number, signal?: AbortSignal) => hostClock.sleep(ms, signal ?? never),
  };
  const store = createMemoryStore({ clock, random: Math.random, timeoutMs: 1_000 });
  const client = store.connect('test');
  const nodes = new Map<string, SmallNode>();
  const pipes = new Map<number, PromiseWithResolvers<MemoryStream>>();
  const told: Told[] = [];
  const cut = new Set<string>();
  const ending = new AbortController();
  const running: Promise<void>[] = [];
  let last = 0;

  function pipe(descriptor: number): PromiseWithResolvers<MemoryStream> {
    const found = pipes.get(descriptor) ?? Promise.withResolvers<MemoryStream>();
    pipes.set(descriptor, found);
    return found;
  }

  const streams = {
    write: async (stream: MemoryStream, descriptor: number) => pipe(descriptor).resolve(stream),
    read: (descriptor: number, signal: AbortSignal) =>
      Promise.race([pipe(descriptor).promise, rejectedBy(signal, 'stream-invalid')]),
  };

  function node(name: string): SmallNode {
    const found = nodes.get(name);
    if (found === undefined) throw new FlockError('node-unreachable', `node ${name} does not answer`);
    return found;
  }

  function refuseCut(from: NodeName, to: NodeName): void {
    for (const name of [from, to])
      if (cut.has(name)) throw new FlockError('node-unreachable', `node ${name} is cut off`);
  }

  function peersOf(me: NodeName): Peers {
    return {
      async call(to, name, ask, { signal }) {
        refuseCut(me, to);
        const answer = node(to).agent.answers[name] as (
          peer: NodeName,
          ask: unknown,
          signal: AbortSignal,
        ) => Promise<PeerCalls[typeof name]['answer']>;
        return await answer(me, structuredClone(ask), signal);
      },
      forward: () => Promise.reject(new FlockError('not-supported', 'nothing is forwarded')),
      async transfer(to, transfer, onProgress, signal) {
        refuseCut(me, to);
        await Promise.race([cluster.onStream(me, to), rejectedBy(signal, 'node-unreachable')]);
        last += 1;
        const descriptor = last;
        const { id } = transfer.doc;
        const sending = node(me).storage.send({ id, to: transfer.to, from: transfer.from }, descriptor, signal);
        onProgress(1);
        await Promise.all([
          sending,
          node(to).agent.receive(me, transfer, (receive) => receive(descriptor, signal), signal),
        ]);
      },
    };
  }

  function watched(me: NodeName, plain: Store): Store {
    return {
      ...plain,
      transact(operations) {
        cluster.onTransact(me, operations);
        return plain.transact(operations);
      },
    };
  }

  async function start(name: NodeName): Promise<void> {
    const disk = createMemoryDisk();
    disk.sizeBytes = 1024 ** 3;
    const randomHex = (digits: number) => randomBytes(digits).toString('hex').slice(0, digits);
    const fixture = await createFixture(() => createMemory({ nowMs: Date.now, randomHex, disk, streams }));
    // Two nodes must not make the same ids.
    const context: Context = {
      ...fixture.context,
      clock: { ...fixture.context.clock, nowMs: Date.now, randomHex: hostClock.randomHex },
      get ownership() {
        return agent.ownership;
      },
    };
    const { state } = context;
    const agent = createAgent({
      node: name,
      alive: { incarnation: hostClock.randomHex(8), version: 'test' } satisfies AliveDoc,
      timing,
      store: watched(name, store.connect(name)),
      clock: hostClock,
      users: nobody,
      peers: peersOf(name),
      context,
      memory: {
        loadSession: () => state.fact('session') as SessionId | null,
        saveSession: (session) => state.setFact('session', session),
        loadDocs: () => state.docs(),
        saveDocs: (put, gone) => state.setDocs(put, gone),
        loadNodes: () => state.fact('nodes'),
        saveNodes: (text) => state.setFact('nodes', text),
      },
      deadlines: { load: () => new Map(), publish: async () => undefined },
      stashMs: () => 86_400_000,
      tell: (kind, subject, text) => void told.push({ node: name, kind, subject, text }),
    });
    const idOf = (volume: string) => {
      const record = state.byName(parseVolumeName(volume));
      if (record === undefined) throw new Error(`test: there is no ${volume} on ${name}`);
      return record.id;
    };
    nodes.set(name, {
      name,
      agent,
      context,
      storage: fixture.storage,
      disk,
      fixture,
      create: (volume, options = {}) => createVolume(context, volume, options, never).then(() => undefined),
      async use(volume) {
        const mountId = hostClock.randomHex(16);
        await mountVolume(context, volume, mountId, never);
        const id = idOf(volume);
        fixture.holders.set(id, [{ pid: 1, containerId: mountId, mountPoint: '/data' }]);
        return async () => {
          fixture.holders.delete(id);
          await unmountVolume(context, volume, mountId, never);
        };
      },
      write: (volume, data) => fixture.storage.content.write(idOf(volume), 'file', data),
      read: async (volume) => (await fixture.storage.content.read(idOf(volume), 'file'))?.toString() ?? null,
    });
    running.push(agent.run(ending.signal));
  }

  const cluster: SmallCluster = {
    store,
    client,
    node,
    onStream: () => undefined,
    onTransact: () => undefined,
    told,
    cutOff(name) {
      cut.add(name);
      store.cut(name);
      store.endSession(node(name).context.state.fact('session') as SessionId);
    },
    async dispose() {
      ending.abort();
      await Promise.all(running);
      for (const { fixture } of nodes.values()) await fixture.dispose();
      store.close();
    },
  };

  await client.transact(names.map((name) => ({ kind: 'set', key: `${keys.nodes}/${name}`, value: nodeDoc(name) })));
  for (const name of names) await start(parseNodeName(name));
  await until('all nodes see each other', waitMs, () => {
    const see = ({ agent }: SmallNode) => [...agent.directory.nodes()].filter(({ alive }) => alive !== null).length;
    return [...nodes.values()].every((one) => see(one) === names.length) ? true : undefined;
  });
  return cluster;
}

function nodeDoc(name: string): string {
  const doc: NodeDoc = {
    name: parseNodeName(name),
    address: name,
    port: 1,
    labels: {},
    cordoned: false,
    draining: false,
    format: 'btrfs',
    joinedAtMs: 0,
  };
  return JSON.stringify(doc);
}

/** The containers of a small cluster are told of by their holders only. */
const nobody: Users = {
  using: async () => new Set(),
  freeze: async () => undefined,
  thaw: async () => undefined,
  stop: async () => undefined,
};

function rejectedBy(signal: AbortSignal, code: 'stream-invalid' | 'node-unreachable'): Promise<never> {
  return new Promise((_resolve, reject) => {
    const abort = () => reject(new FlockError(code, 'the transfer was cancelled'));
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
}
