import { mkdtemp, rm } from 'node:fs/promises';
import type { Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { pino } from 'pino';
import { createEventLog } from '../../controller/cluster/event-log.ts';
import type { CopyEstimateView, CopyRoundView } from '../../controller/model/api.ts';
import { keys, type VolumeDoc } from '../../controller/model/cluster.ts';
import { summaryOf } from '../../controller/model/move-summary.ts';
import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import { type WorkloadDoc, workloadKeys } from '../../controller/model/workload.ts';
import { createMoveRoutes } from '../../controller/moves/api.ts';
import { createDrainer } from '../../controller/moves/drainer.ts';
import { createMover } from '../../controller/moves/mover.ts';
import { createPreflight, preflightRouter } from '../../controller/moves/preflight.ts';
import { createRecords } from '../../controller/moves/records.ts';
import type { AskController, Clock } from '../../controller/program/home.ts';
import { workloadRoutes } from '../../controller/program/routes.ts';
import { type ClusterView, createClusterView } from '../../controller/program/view.ts';
import { createApiServer } from '../../controller/server/api-server.ts';
import { listen } from '../../controller/server/listen.ts';
import { askSocket } from '../../controller/socket-request.ts';
import { createMemoryStore } from '../../controller/store/memory.ts';
import type { Operation } from '../../controller/store/store.ts';
import { createCommands } from '../../plugin/exec.ts';
import { planNode } from './move-documents.ts';
import { createFakes, type FakeContainer, type FakeHost } from './move-fakes.ts';
import { inTerminal } from './terminal.ts';
import { until } from './until.ts';

/** Hosts with controllers that move and drain, their sockets, and flockctl, in real time; Docker, plugin and proxy of few words. */
export type MoveHosts = Awaited<ReturnType<typeof createMoveHosts>>;

const cli = join(import.meta.dirname, '../../controller/cli/main.ts');
const hourMs = 3_600_000;

export async function createMoveHosts(documents: {
  readonly nodes: readonly string[];
  readonly workloads: readonly WorkloadDoc[];
  readonly volumes: readonly VolumeDoc[];
}) {
  const stop = new AbortController();
  const clock: Clock = {
    bootMs: () => performance.now(),
    nowMs: () => Date.now(),
    randomHex: (bytes) => Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString('hex'),
    sleep: (ms, signal) => sleep(ms, undefined, { signal }).catch(() => undefined),
  };
  const log = pino({ level: 'silent' });
  const memory = createMemoryStore({ clock, random: Math.random });
  const admin = memory.connect('admin');
  const folder = await mkdtemp(join(tmpdir(), 'flock-moves-'));
  const hosts = new Map<string, FakeHost>();
  const broken = new Map<string, string>();
  const pauses = new Map<string, number>();
  const problems: string[] = [];
  let copying: CopyRoundView | null = null;
  let coming: CopyEstimateView = { hasCopy: true, bytes: 10 };
  /** Nodes whose Docker has the image of all containers. */
  const images = new Set<string>(['n1']);
  const views = new Map<string, ClusterView>();
  /** What the store was when a node saw it last. */
  const blind = new Map<string, ReturnType<ClusterView['seen']>>();
  const servers: Server[] = [];
  const running: Promise<void>[] = [];
  const { publish, toolsOf } = createFakes({
    ...{ clock, log, hosts, admin, problems, broken, pauses, startMs: new Map() },
    after: (ms, work) => void setTimeout(work, ms),
    copying: () => copying,
    coming: () => coming,
    call: async (host, what, _ended, work) => {
      const problem = broken.get(`${host.node} ${what}`);
      if (problem !== undefined) throw new Error(problem);
      return await work();
    },
  });

  async function joinCluster(name: string): Promise<void> {
    const node = parseNodeName(name);
    const session = await admin.createSession({ name, ttlMs: hourMs, lockDelayMs: 0 });
    const { alive: _alive, space: _space, ...doc } = planNode(name);
    const value = JSON.stringify({ incarnation: '1', version: '1' });
    await admin.transact([
      { kind: 'set', key: keys.node(node), value: JSON.stringify(doc) },
      { kind: 'lock', key: keys.alive(node), value, session },
      { kind: 'lock', key: keys.controller(node), value, session },
    ]);
  }

  /** Over its socket, where a real one is asked over TLS. */
  const askOther: AskController = async (node, { path, body, schema }, signal) => {
    const socketPath = join(folder, `${node}.sock`);
    const { status, text } = await askSocket({ socketPath, method: 'POST', path, body, signal });
    if (status !== 200) throw new Error(text);
    return schema.parse(JSON.parse(text));
  };

  async function begin(node: NodeName): Promise<void> {
    const containers = new Map<string, FakeContainer>();
    const host: FakeHost = { node, containers, isDead: () => false };
    hosts.set(node, host);
    for (const workload of documents.workloads.filter((one) => one.node === node)) {
      const id = workload.containerId ?? '';
      containers.set(id, { id, name: workload.name, workload, running: workload.wanted === 'running', exitCode: 0 });
    }
    publish(host);
    const store = memory.connect(node);
    const view = createClusterView({ store, isCluster: true, clock, log });
    const events = createEventLog({ store, node, clock });
    const tools = toolsOf(host, store, stop.signal);
    const records = createRecords({
      ...{ store, clock, log },
      onEnd: (doc) => events.tell(doc.failure === null ? 'move-done' : 'move-failed', doc.service, summaryOf(doc)),
    });
    const mover = createMover({ tools, records, view });
    const parts = { store, view: { ...view, seen: () => blind.get(node) ?? view.seen() }, events, clock };
    views.set(node, view);
    const drainer = createDrainer({ tools, mover, view, begin: parts, events, log });
    const looking = {
      node,
      store,
      docker: tools.docker,
      maker: tools.maker,
      net: tools.net,
      plugin: tools.plugin,
      image: async () => images.has(node) || null,
    };
    const preflight = createPreflight(looking, askOther);
    const routes = createMoveRoutes({ tools, begin: parts, mover, drainer, preflight, isMember: true });
    const routers = [workloadRoutes(view), routes, preflightRouter(looking)];
    servers.push(await listen(join(folder, `${node}.sock`), createApiServer(routers, log)));
    running.push(...[view, events, mover, drainer].map((part) => part.run(stop.signal)));
    await until(`${node} sees the store`, 5_000, () => view.seen() ?? undefined);
  }

  async function failing(node: string, args: readonly string[]) {
    const env = { FLOCK_CONTROLLER_SOCKET: join(folder, `${node}.sock`) };
    const ended = await execa(process.execPath, [cli, ...args], { env, reject: false });
    if (ended.exitCode !== 1) throw new Error(`flockctl ${args.join(' ')} was expected to fail: ${ended.stdout}`);
    return ended;
  }

  const cluster = { id: 'c', createdAtMs: 1, profile: 'default', caCertificate: '' };
  await admin.transact([
    { kind: 'set', key: keys.cluster, value: JSON.stringify(cluster) },
    ...documents.workloads.map(
      (doc): Operation => ({ kind: 'set', key: workloadKeys.workload(doc.id), value: JSON.stringify(doc) }),
    ),
    ...documents.volumes.map(
      (doc): Operation => ({ kind: 'set', key: keys.volume(doc.id), value: JSON.stringify(doc) }),
    ),
  ]);
  for (const name of documents.nodes) await joinCluster(name);
  for (const name of documents.nodes) await begin(parseNodeName(name));

  return {
    ...{ store: admin, broken, problems, pauses, images },
    /** Docker's containers of a host. */
    containers: (name: string) => hosts.get(name)?.containers ?? new Map<string, FakeContainer>(),
    socketOf: (name: string) => join(folder, `${name}.sock`),
    runs: (name: string): readonly string[] =>
      [...hosts.values()].flatMap(({ node, containers }) =>
        [...containers.values()].filter((one) => one.name === name && one.running).map(() => node),
      ),
    terminal: (node: string, ...args: readonly string[]) =>
      inTerminal([process.execPath, cli, ...args], { FLOCK_CONTROLLER_SOCKET: join(folder, `${node}.sock`) }),
    /** What the plugins say of copies from now on; null: they are done. */
    copies(round: CopyRoundView | null): void {
      copying = round;
    },
    /** What they say would be sent of each volume from now on. */
    estimates(estimate: CopyEstimateView): void {
      coming = estimate;
    },
    flockctl: (node: string, ...args: readonly string[]) =>
      createCommands({ FLOCK_CONTROLLER_SOCKET: join(folder, `${node}.sock`) }).run(process.execPath, [cli, ...args]),
    /** What a command that has to fail says of why, and what it prints. */
    refused: async (node: string, ...args: readonly string[]) => (await failing(node, args)).stderr,
    printed: async (node: string, ...args: readonly string[]) => (await failing(node, args)).stdout,
    /** The routes of its controller, and its drainer, see no change of nodes and volumes any more. */
    blind: (name: string) => blind.set(name, views.get(name)?.seen() ?? null),
    /** Its controller answers nobody any more. */
    silence(name: string): void {
      servers[documents.nodes.indexOf(name)]?.close();
    },
    async dispose(): Promise<void> {
      stop.abort();
      await Promise.all(running);
      for (const server of servers) {
        server.close();
        server.closeAllConnections();
      }
      memory.close();
      await rm(folder, { recursive: true });
    },
  };
}
