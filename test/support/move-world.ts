import { pino } from 'pino';
import type { CopyEstimateView } from '../../controller/model/api.ts';
import { decodeVolume, keys, type NodeDoc, type VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { decodeMove, type MoveDoc, moveKeys } from '../../controller/model/move.ts';
import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import { decodeWorkload, type WorkloadDoc, workloadKeys } from '../../controller/model/workload.ts';
import { createMover, type Mover } from '../../controller/moves/mover.ts';
import { createRecords } from '../../controller/moves/records.ts';
import type { Clock } from '../../controller/program/home.ts';
import { createPresence } from '../../controller/program/presence.ts';
import { createClusterView } from '../../controller/program/view.ts';
import { createMemoryStore } from '../../controller/store/memory.ts';
import type { Operation, SessionId } from '../../controller/store/store.ts';
import { createRandom } from '../simulation/random.ts';
import { createScheduler } from '../simulation/scheduler.ts';
import { planNode } from './move-documents.ts';
import { createFakes, type FakeContainer, type FakeHost } from './move-fakes.ts';

/**
 * Hosts with Docker, plugin and proxy of few words, the real controllers' movers on them, a store in memory and a time of its own. Every
 * effect that a mover asks for is a call with a number; a fault can be put before or after any of them.
 */
export type Fault = {
  /** The number of the call. */
  readonly at: number;
  /**
   * `refused`: not done, an error. `unanswered`: done, and an error all the same. `crash-...`: the controller ends there, and its successor
   * begins a second later. `gone-...`: the controller ends there, and has no successor. `death-...`: the whole host.
   */
  readonly how: 'refused' | 'unanswered' | `${'crash' | 'gone' | 'death'}-${'before' | 'after'}`;
};

export type Call = { readonly node: string; readonly what: string };

type Host = FakeHost & {
  mover(): Mover | null;
  join(): Promise<void>;
  begin(): void;
  crash(): void;
  die(): void;
  add(workload: WorkloadDoc): void;
};

export type MoveWorld = ReturnType<typeof createMoveWorld>;

const restartMs = 1_000;
const hourMs = 3_600_000;
const alive = { incarnation: '1', version: '1' };

export function createMoveWorld(faults: readonly Fault[] = []) {
  const names = ['n1', 'n2', 'n3'];
  const scheduler = createScheduler();
  const random = createRandom(1);
  const sleep = (ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve) => {
      if (signal?.aborted === true) return resolve();
      const timer = scheduler.after(ms, () => resolve());
      signal?.addEventListener('abort', () => {
        timer.cancel();
        resolve();
      });
    });
  const clock: Clock = {
    bootMs: () => scheduler.nowMs(),
    nowMs: () => 1_000_000 + Math.round(scheduler.nowMs()),
    randomHex: (bytes) => random.hex(2 * bytes),
    sleep,
  };
  const log = pino({ level: 'silent' });
  const store = createMemoryStore({ clock: { nowMs: scheduler.nowMs, sleep }, random: random.next, timeoutMs: 5_000 });
  const admin = store.connect('admin');
  const calls: Call[] = [];
  const events: string[] = [];
  const problems: string[] = [];
  const pauses = new Map<string, number>();
  const hosts = new Map<string, Host>();
  /** What is to go wrong every time: `n2 start`. */
  const broken = new Map<string, string>();
  /** How long Docker takes to start something on a host, milliseconds. */
  const startMs = new Map<string, number>();
  const after = (ms: number, work: () => void) => void scheduler.after(ms, work);
  const coming = () => world.coming;
  const parts = { after, clock, log, hosts, admin, problems, broken, startMs, pauses, coming };
  const { publish, toolsOf } = createFakes({ ...parts, call: (...asked) => call(...asked) });

  function createHost(name: string) {
    const node = parseNodeName(name);
    const containers = new Map<string, FakeContainer>();
    let isDead = false;
    let session: SessionId | null = null;
    let crash = new AbortController();
    let mover: Mover | null = null;

    const host: Host = {
      node,
      containers,
      isDead: () => isDead,
      mover: () => mover,
      async join() {
        session = await admin.createSession({ name, ttlMs: 20 * hourMs, lockDelayMs: 0 });
        await admin.transact([
          { kind: 'set', key: keys.node(node), value: JSON.stringify(nodeDocOf(name)) },
          { kind: 'lock', key: keys.alive(node), value: JSON.stringify(alive), session },
        ]);
      },
      begin() {
        crash = new AbortController();
        const client = store.connect(name);
        const { signal } = crash;
        const view = createClusterView({ store: client, isCluster: true, clock, log });
        const tools = toolsOf(host, client, signal);
        const onEnd = (doc: MoveDoc) => void events.push(`${name}: ${doc.id} ${doc.step}`);
        const records = createRecords({ store: tools.store, clock, log, onEnd });
        mover = createMover({ tools, records, view });
        void view.run(signal);
        void mover.run(signal);
        void createPresence({ store: client, node, clock, alive, log }).run(signal);
      },
      crash() {
        crash.abort(new Error('crashed'));
      },
      die() {
        if (isDead) return;
        isDead = true;
        host.crash();
        for (const container of containers.values()) container.running = false;
        if (session !== null) store.endSession(session);
      },
      add(workload: WorkloadDoc) {
        const id = workload.containerId ?? '';
        containers.set(id, { id, name: workload.name, workload, running: workload.wanted === 'running', exitCode: 0 });
        publish(host);
      },
    };
    return host;
  }
  /** One call of a mover, with what is to go wrong at it. */
  async function call<T>({ node }: FakeHost, what: string, ended: AbortSignal, work: () => Promise<T>): Promise<T> {
    const host = world.host(node);
    const gone = () => new Promise<never>(() => undefined);
    if (ended.aborted) return await gone();
    const name = `${host.node} ${what}`;
    const how = faults.find(({ at }) => at === calls.length)?.how ?? null;
    calls.push({ node: host.node, what });
    world.onCall(calls.length - 1);
    const isStore = what === 'transact';
    const failed = (text: string) => new FlockError(isStore ? 'store-unavailable' : 'deadline-exceeded', text);
    const end = async () => {
      if (how?.startsWith('death')) host.die();
      else host.crash();
      if (how?.startsWith('crash')) scheduler.after(restartMs, () => host.begin());
      return await gone();
    };
    if (how?.endsWith('before')) return await end();
    const problem = broken.get(name);
    if (how === 'refused' || problem !== undefined) {
      await sleep(5);
      throw problem === undefined ? failed(`${what} was refused`) : new FlockError('docker-failed', problem);
    }
    const result = await work();
    if (host.isDead()) return await gone();
    if (how?.endsWith('after')) return await end();
    if (how === 'unanswered') throw failed(`no answer to ${what}`);
    // Whoever crashed meanwhile hears nothing any more.
    return ended.aborted ? await gone() : result;
  }

  const world = {
    /** Told of each call before it is made. */
    onCall: (_at: number): void => undefined,
    /** What the plugins say would be sent of each volume. */
    coming: { hasCopy: true, bytes: 10 } as CopyEstimateView,
    scheduler,
    clock,
    hosts,
    store: admin,
    memory: store,
    calls,
    events,
    problems,
    broken,
    startMs,
    /** Services that are held now. */
    paused: () => [...pauses].filter(([, untilMs]) => untilMs > clock.nowMs()).map(([service]) => service),
    host(name: string): Host {
      const found = hosts.get(name);
      if (found === undefined) throw new Error(`no host ${name}`);
      return found;
    },
    /** Runs until the condition holds; fails after so much of the world's time. */
    async until(what: string, isDone: () => boolean, limitMs = hourMs): Promise<void> {
      const endMs = scheduler.nowMs() + limitMs;
      await scheduler.run(() => isDone() || scheduler.nowMs() > endMs);
      if (!isDone()) throw new Error(`waited ${limitMs} ms of the world's time in vain until ${what}`);
    },
    async pass(ms: number): Promise<void> {
      const endMs = scheduler.nowMs() + ms;
      let isOver = false;
      scheduler.after(ms, () => {
        isOver = true;
      });
      await scheduler.run(() => isOver && scheduler.nowMs() >= endMs);
    },
    /** What the promise answers, with time going on meanwhile. */
    async finish<T>(promise: Promise<T>): Promise<T> {
      let isOver = false;
      const ended = promise.finally(() => {
        isOver = true;
      });
      ended.catch(() => undefined);
      await world.until('a call has ended', () => isOver);
      return await ended;
    },
    move(): MoveDoc | null {
      const entry = store.entries().find(({ key }) => key.startsWith(`${moveKeys.moves}/`));
      return entry === undefined ? null : decodeMove(entry.value);
    },
    workloads: () =>
      store
        .entries()
        .filter(({ key }) => key.startsWith(`${workloadKeys.workloads}/`))
        .map(({ value }) => decodeWorkload(value)),
    volumes: () =>
      store
        .entries()
        .filter(({ key }) => key.startsWith(`${keys.volumes}/`))
        .map(({ value }) => decodeVolume(value)),
    /** Where containers of this name run. */
    runs: (name: string): readonly NodeName[] =>
      [...hosts.values()].flatMap(({ node, containers }) =>
        [...containers.values()].filter((one) => one.name === name && one.running).map(() => node),
      ),
    containers: () =>
      [...hosts.values()].flatMap(({ node, containers }) =>
        [...containers.values()].map(({ name }) => `${name} on ${node}`),
      ),
    async end(): Promise<void> {
      for (const host of hosts.values()) host.crash();
      store.close();
    },
  };

  return Object.assign(world, {
    /** Makes the cluster with these documents, calls `before`, and begins all controllers. */
    async begin(
      documents: {
        readonly workloads: readonly WorkloadDoc[];
        readonly volumes: readonly VolumeDoc[];
        readonly move: MoveDoc;
      },
      before: () => void = () => undefined,
    ) {
      const cluster = { id: 'c', createdAtMs: 1, profile: 'default', caCertificate: '' };
      const setting = async () => {
        for (const name of names) {
          const host = createHost(name);
          hosts.set(name, host);
          await host.join();
        }
        const { workloads, volumes, move } = documents;
        await admin.transact([
          { kind: 'set', key: keys.cluster, value: JSON.stringify(cluster) },
          ...workloads.map(
            (doc): Operation => ({
              kind: 'set',
              key: workloadKeys.workload(doc.id),
              value: JSON.stringify({ ...doc, move: move.id }),
            }),
          ),
          ...volumes.map((doc): Operation => ({ kind: 'set', key: keys.volume(doc.id), value: JSON.stringify(doc) })),
          { kind: 'set', key: moveKeys.move(move.id), value: JSON.stringify({ ...move, stepSinceMs: clock.nowMs() }) },
        ]);
        for (const workload of workloads) world.host(workload.node).add(workload);
        before();
        for (const host of hosts.values()) host.begin();
      };
      await world.finish(setting());
    },
  });
}

function nodeDocOf(name: string): NodeDoc {
  const { alive: _alive, space: _space, ...doc } = planNode(name);
  const { deadSinceMs: _dead, ...rest } = doc as NodeDoc & { readonly deadSinceMs?: unknown };
  return rest;
}
