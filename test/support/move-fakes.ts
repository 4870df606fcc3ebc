import type { CopyEstimateView, CopyRoundView } from '../../controller/model/api.ts';
import { decodeVolume, keys, type VolumeDoc } from '../../controller/model/cluster.ts';
import { workloadLabel } from '../../controller/model/container-spec.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import { ownedBy } from '../../controller/model/ownership.ts';
import { publishedBy } from '../../controller/model/published-ports.ts';
import type { WorkloadDoc } from '../../controller/model/workload.ts';
import type { MoveTools } from '../../controller/moves/ports.ts';
import type { Clock } from '../../controller/program/home.ts';
import type { Operation, Store } from '../../controller/store/store.ts';
import { parseHandover } from '../../plugin/server/moving-api.ts';
import { containerId, datasetId } from './move-documents.ts';
import { quietNet } from './quiet-net.ts';

/** Docker, plugin and proxy of a host in few words, for movers that are real. */
export type FakeContainer = {
  readonly id: string;
  readonly name: string;
  readonly workload: WorkloadDoc;
  /** Left out: `bridge`. */
  readonly networkMode?: string;
  /** A person has made it, and flock does not look after it. */
  readonly isForeign?: boolean;
  running: boolean;
  exitCode: number;
  hasRun?: boolean;
};

export type FakeHost = {
  readonly node: NodeName;
  readonly containers: Map<string, FakeContainer>;
  isDead(): boolean;
};

export type FakeParts = {
  readonly after: (ms: number, work: () => void) => void;
  readonly clock: Clock;
  readonly log: MoveTools['log'];
  readonly hosts: ReadonlyMap<string, FakeHost>;
  /** Of nobody: for what hosts do beside their movers. */
  readonly admin: Store;
  /** What must never happen, and did. */
  readonly problems: string[];
  /** What is to go wrong every time: `n2 start`, `n2 reach`; everywhere: `reach 81`, `check web`, which had failed before, too. */
  readonly broken: ReadonlyMap<string, string>;
  /** How long Docker takes to start something on a host, milliseconds. */
  readonly startMs: ReadonlyMap<string, number>;
  /** Services, and until when they are paused. */
  readonly pauses: Map<string, number>;
  /** What the plugin says of a copy that goes on. Null, and left out: it is done at once. */
  readonly copying?: () => CopyRoundView | null;
  /** What it says would be sent of a volume. Left out: little, to a copy. */
  readonly coming?: () => CopyEstimateView;
  /** Wraps each effect that a mover asks for. */
  readonly call: <T>(host: FakeHost, what: string, ended: AbortSignal, work: () => Promise<T>) => Promise<T>;
};

export function createFakes(parts: FakeParts) {
  const { after, clock, log, hosts, admin, problems, broken, startMs, pauses, copying, coming, call } = parts;
  const sleep = (ms: number) => clock.sleep(ms, never);
  let made = 0;

  async function volume(name: string): Promise<{ readonly doc: VolumeDoc; readonly index: string }> {
    const entry = await admin.get(keys.volume(datasetId(name)), { fresh: true });
    if (entry === null) throw new FlockError('volume-not-found', `no volume ${name}`);
    return { doc: decodeVolume(entry.value), index: entry.index };
  }

  function usersOf(host: FakeHost, name: string): readonly FakeContainer[] {
    return [...host.containers.values()].filter(
      ({ running, workload }) => running && workload.volumes.some((one) => one.name === name),
    );
  }

  /** As the proxy of a node does it, a moment later, or when the store is back. */
  function publish(host: FakeHost): void {
    after(20, () => {
      if (host.isDead()) return;
      for (const { id, running } of host.containers.values()) {
        const value = JSON.stringify({ state: running ? 'running' : 'exited', healthy: running });
        admin.transact([{ kind: 'set', key: `proxy/containers/${host.node}/${id}`, value }]).catch(() => publish(host));
      }
    });
  }

  async function start(host: FakeHost, id: string): Promise<void> {
    const container = host.containers.get(id);
    if (container === undefined) throw new FlockError('docker-failed', `no such container ${id}`);
    if (container.running) return;
    await sleep(startMs.get(host.node) ?? 200);
    for (const { name } of container.workload.volumes) {
      const { doc } = await volume(name);
      if (doc.owner !== host.node) throw new FlockError('docker-failed', `volume ${name} is on ${doc.owner}`);
    }
    if (host.isDead()) return;
    // What was removed meanwhile does not run.
    if (!host.containers.has(id)) return;
    const elsewhere = [...hosts.values()].filter((other) =>
      [...other.containers.values()].some((one) => one.running && one.workload.id === container.workload.id),
    );
    if (elsewhere.length > 0)
      problems.push(`${container.name} was started on ${host.node} and runs on ${elsewhere[0]?.node}`);
    container.running = true;
    container.hasRun = true;
    publish(host);
  }

  async function stop(host: FakeHost, id: string): Promise<void> {
    const container = host.containers.get(id);
    if (container?.running !== true) return;
    await sleep(100);
    container.running = false;
    publish(host);
  }

  function toolsOf(host: FakeHost, client: Store, ended: AbortSignal): MoveTools {
    const effect = <T>(what: string, work: () => Promise<T>) => call(host, what, ended, work);
    return {
      node: host.node,
      net: quietNet,
      clock,
      log,
      store: { ...client, transact: (operations) => effect('transact', () => client.transact(operations)) },
      docker: {
        async list() {
          return [...host.containers.values()].map(
            ({ id, name, workload, running, hasRun = false, networkMode = 'bridge', isForeign = false }) => {
              const ports = running ? publishedBy(workload.spec) : [];
              const state = running ? 'running' : hasRun ? 'exited' : 'created';
              const labels: Record<string, string> = isForeign ? {} : { [workloadLabel]: workload.id };
              const networks = ['bridge', ...Object.keys(workload.spec.networksNeeded)];
              return { id, name, labels, volumeDrivers: [], state, networkMode, networks, ports };
            },
          );
        },
        async inspect(id) {
          const container = host.containers.get(id);
          if (container === undefined) return null;
          const { name, running, exitCode, hasRun = false } = container;
          const check = broken.has(`check ${name}`) ? { Healthcheck: { Test: ['CMD', 'check'] } } : {};
          const health = broken.has(`check ${name}`) ? { Status: hasRun ? 'starting' : 'unhealthy' } : null;
          return {
            State: { Running: running, ExitCode: exitCode, Health: health },
            Config: check,
            HostConfig: { NetworkMode: 'bridge' },
            NetworkSettings: { Networks: { bridge: { IPAddress: '172.17.0.2' } } },
          };
        },
        start: (id) => effect('start', () => start(host, id)),
        stop: (id) => effect('stop', () => stop(host, id)),
        remove: (id) =>
          effect('remove', async () => {
            await stop(host, id);
            host.containers.delete(id);
            await admin
              .transact([{ kind: 'delete', key: `proxy/containers/${host.node}/${id}` }])
              .catch(() => undefined);
          }),
        tail: async () => 'last words',
        execute: async (id) => ({ exitCode: broken.has(`check ${host.containers.get(id)?.name}`) ? 1 : 0, output: '' }),
      },
      locals: { describeOne: async (id) => host.containers.get(id)?.workload ?? null },
      images: { ensure: () => effect('image', () => sleep(50)) },
      maker: {
        make: (workload) =>
          effect('make', async () => {
            const there = [...host.containers.values()].find(
              (one) => one.workload.id === workload.id && one.name === workload.name,
            );
            if (there !== undefined) return there.id;
            made += 1;
            const id = containerId(`${workload.name}-${host.node}-${made}`);
            host.containers.set(id, { id, name: workload.name, workload, running: false, exitCode: 0 });
            publish(host);
            return id;
          }),
        isNameTaken: async ({ name }) =>
          [...host.containers.values()].some((one) => one.name === name && one.isForeign === true),
      },
      plugin: {
        copy: () =>
          effect('copy', async () => {
            await sleep(100);
            return copying?.() ?? { state: 'done', sentBytes: 10, totalBytes: 10, roundMs: 100 };
          }),
        estimate: async () => coming?.() ?? { hasCopy: true, bytes: 10 },
        handOver: ({ to, volumes, operations, deadlineMs }) =>
          effect('hand-over', async () => {
            await sleep(100);
            parseHandover({ to, volumes, operations, deadlineMs });
            for (const name of volumes)
              if (usersOf(host, name).length > 0) throw new FlockError('volume-in-use', `${name} is in use`);
            const found = await Promise.all(volumes.map(volume));
            const foreign = found.find(({ doc }) => doc.owner !== host.node);
            if (foreign !== undefined) throw new FlockError('not-owner', `${foreign.doc.name} is not ours`);
            const passed = found.map(({ doc, index }): Operation => {
              const value = JSON.stringify(ownedBy(doc, parseNodeName(to), null));
              return { kind: 'compare-and-set', key: keys.volume(doc.id), value, index };
            });
            const also = operations.map((one): Operation => ({ kind: 'compare-and-set', ...one }));
            const outcome = await client.transact([...also, ...passed]);
            if (outcome.kind === 'conflict') throw new FlockError('document-changed', outcome.reason);
          }),
      },
      proxy: {
        pause: (service, { forMs, extend }) =>
          effect('pause', async () => {
            const isPaused = (pauses.get(service) ?? 0) > clock.nowMs();
            if (isPaused !== extend) throw new FlockError(isPaused ? 'service-paused' : 'not-paused', service);
            await sleep(30);
            pauses.set(service, clock.nowMs() + forMs);
          }),
        drain: (service) =>
          effect('drain', async () => {
            await sleep(50);
            return { service, untilMs: 0, nodes: [] };
          }),
        release: (service) => effect('release', async () => void pauses.delete(service)),
      },
      reach: async (_address, port) => !broken.has(`${host.node} reach`) && !broken.has(`reach ${port}`),
    };
  }

  return { publish, toolsOf };
}

const never = new AbortController().signal;
