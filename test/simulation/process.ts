import { messageOf } from '../../controller/model/errors.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import { trashMsDefault } from '../../controller/model/settings.ts';
import type { SessionId } from '../../controller/store/store.ts';
import { type Agent, createAgent } from '../../plugin/cluster/agent.ts';
import type { Clock } from '../../plugin/cluster/ports.ts';
import type { Holder } from '../../plugin/holders.ts';
import { createLocks } from '../../plugin/locks.ts';
import type { Context } from '../../plugin/volumes/context.ts';
import { sweepMounts } from '../../plugin/volumes/mounts.ts';
import { absentOwnership } from '../../plugin/volumes/ownership.ts';
import { recover } from '../../plugin/volumes/recover.ts';
import { sweepTrash } from '../../plugin/volumes/trash.ts';
import { type Container, createSimulatedUsers } from './containers.ts';
import { unmountLater } from './docker.ts';
import { createGate, type Gate } from './gate.ts';
import type { Host } from './host.ts';
import { openMemoryState } from './memory-state.ts';
import { createGatedStorage, createGatedStore } from './parts.ts';
import { sleepBy } from './scheduler.ts';
import type { World } from './world.ts';

/** The plugin's process on a host: as plugin/node.ts and plugin/member.ts put it together, with the simulation's parts. */
export type Process = {
  readonly gate: Gate;
  readonly context: Context;
  agent(): Agent | null;
  /** What the node does once a minute. */
  sweep(): Promise<void>;
};

const sweepMs = 5_000;
const startAgainMs = 2_000;
const settings = {
  backend: 'zfs',
  pool: 'tank/flock',
  poolSizeBytes: 1024 ** 3,
  trashMs: trashMsDefault,
  stashMs: trashMsDefault,
  transferBytesPerSecond: null,
  encryption: 'off',
} as const;

export function startProcess(world: World, host: Host): Process {
  const { scheduler, random, timing, network } = world;
  const gate = createGate(scheduler);
  const running = new AbortController();
  const state = openMemoryState(host.file, { id: String(host.bootId()), nowMs: host.useMs }, world.checks.recorded);
  const log = createLog(world, host);
  let agent: Agent | null = null;

  const clock: Clock = {
    bootMs: host.bootMs,
    nowMs: host.wallMs,
    randomHex: (bytes) => random.hex(2 * bytes),
    sleep: sleepBy(host.after, gate.deliver),
  };

  const storage = createGatedStorage(world, host, gate);
  const absent = absentOwnership(
    () => state.docs(),
    (id) => state.byId(id) !== undefined,
  );
  const context: Context = {
    state,
    storage,
    locks: createLocks(),
    usage: { of: () => null, refreshSoon: () => undefined, refresh: async () => undefined, stop: () => undefined },
    get ownership() {
      return agent?.ownership ?? absent;
    },
    settings: () => settings,
    clock: { ...clock, bootMs: host.useMs, sleep: (ms) => clock.sleep(ms, running.signal) },
    dockerShows: () => Promise.resolve(true),
    beginAnew: () => {},
    findHolders: (ids) => gate.pass(host.command(async () => holdersOf(host, ids))),
    describeHolder: async (holder) => `container ${holder.containerId}`,
    log,
  };

  async function sweep(): Promise<void> {
    await recover(context, running.signal);
    await sweepMounts(context, (id) => host.disk.mounted.has(id), running.signal);
    await sweepTrash(context, running.signal);
  }

  /** As the node's start: without its pool it is no member. */
  async function start(): Promise<void> {
    for (;;) {
      try {
        if (host.disk.fault === 'failed') throw new Error('the pool has failed');
        return await recover(context, running.signal);
      } catch (error) {
        log.error({ event: 'node.failed', reason: messageOf(error) }, 'will be tried again');
        await clock.sleep(startAgainMs, running.signal);
      }
    }
  }

  async function run(): Promise<void> {
    await start();
    const users = createSimulatedUsers(world, host, gate, (ended: Container) => unmountLater(world, ended));
    agent = createAgent({
      node: host.name,
      alive: { incarnation: random.hex(8), version: 'simulated' },
      timing,
      store: createGatedStore(world, host, gate),
      clock,
      users,
      peers: network.peersOf(host, gate),
      context,
      memory: {
        loadSession: () => state.fact('session') as SessionId | null,
        saveSession: (session) => state.setFact('session', session),
        loadDocs: () => state.docs(),
        saveDocs: (put, gone) => state.setDocs(put, gone),
        loadNodes: () => state.fact('nodes'),
        saveNodes: (text) => state.setFact('nodes', text),
      },
      deadlines: {
        load: () => host.deadlines(),
        publish: (deadlines) => {
          const copy = new Map(deadlines);
          return gate.pass(host.command(async () => host.publish(copy)));
        },
      },
      stashMs: () => settings.stashMs,
      tell: (kind, subject, text) => world.trace(() => `${host.name}: EVENT ${kind} of ${subject}: ${text}`),
    });
    void sweepOften();
    await agent.run(running.signal);
  }

  async function sweepOften(): Promise<void> {
    for (;;) {
      await clock.sleep(sweepMs, running.signal);
      await sweep().catch((error: unknown) => log.warn({ event: 'sweep.failed', reason: messageOf(error) }, ''));
    }
  }

  void run();
  return { gate, context, agent: () => agent, sweep };
}

function holdersOf(host: Host, ids: readonly DatasetId[]): ReadonlyMap<DatasetId, readonly Holder[]> {
  const holders = new Map<DatasetId, Holder[]>();
  for (const { id, volume } of host.containers) {
    if (!ids.includes(volume)) continue;
    const holder = { pid: 1, containerId: id, mountPoint: '/data' };
    holders.set(volume, [...(holders.get(volume) ?? []), holder]);
  }
  return holders;
}

/** Into the trace, if there is one. */
function createLog(world: World, host: Host): Context['log'] {
  const line = (fields: object, text: string) => world.trace(() => `${host.name}: ${JSON.stringify(fields)} ${text}`);
  const log = { debug: line, info: line, warn: line, error: line };
  return log as unknown as Context['log'];
}
