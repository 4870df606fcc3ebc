import { mkdtemp, rm } from 'node:fs/promises';
import type { Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { parseNodeName } from '../../controller/model/names.ts';
import { listen } from '../../controller/server/listen.ts';
import { createMemoryStore } from '../../controller/store/memory.ts';
import { CommandError, createCommands } from '../../plugin/exec.ts';
import { createProxyApi } from '../../proxy/api/api.ts';
import { collect, type Documents } from '../../proxy/model/collect.ts';
import { type ContainerDoc, containerSchema } from '../../proxy/model/containers.ts';
import {
  type ProxyNodeDoc,
  proxyKeys,
  proxyNodeSchema,
  type ServiceSettings,
  serviceSettingsSchema,
  storedCertificateSchema,
  storedLinkSchema,
} from '../../proxy/model/keys.ts';
import { readLabels } from '../../proxy/model/labels.ts';
import { decode, routeSchema } from '../../proxy/model/records.ts';
import type { Seen } from '../../proxy/model/status.ts';
import { buildTable } from '../../proxy/model/table.ts';

/** How the proxy of a node behaves towards pauses. */
export type Behaviour = {
  /** False: its document never names a pause. */
  acknowledges: boolean;
  /** It says nothing more. */
  hangs: boolean;
  /** What it reports of a drain; null: nothing. */
  leaves: { readonly requests: number; readonly tunnels: number; readonly tunnelsClosed: number } | null;
  problems: Readonly<Record<string, string>>;
};

const nothing = { requests: 0, tunnels: 0, tunnelsClosed: 0 };

export function containerDoc(name: string, labels: Readonly<Record<string, string>>, more: Partial<ContainerDoc> = {}) {
  const { declared, problems } = readLabels(labels);
  const id = Buffer.from(name.padEnd(32, '.')).toString('hex').slice(0, 64);
  return {
    ...{ id, name, createdAtMs: 1, startedAtMs: 1, state: 'running', healthy: true, address: '172.17.0.2' },
    ...{ gateway: '172.17.0.1', declared, problems, node: parseNodeName('host-1') },
    ...{ inner: { address: '192.0.2.1', ports: {} }, linkPorts: {} },
    ...more,
  } satisfies ContainerDoc;
}

/** The API of node host-1 on a real socket, in front of a memory store in which other nodes' proxies live, too. */
export async function createApiProxies(others: readonly string[] = []) {
  const stop = new AbortController();
  const memory = createMemoryStore({
    clock: { nowMs: Date.now, sleep: (ms, signal) => sleep(ms, undefined, signal && { signal }).catch(() => {}) },
    random: Math.random,
  });
  const store = memory.connect('host-1');
  const alive = new Map(['host-1', ...others].map((name) => [parseNodeName(name), { alive: true }]));
  const behaviours = new Map<string, Behaviour>();
  const problems = new Map<string, string>();
  const running: Promise<void>[] = [];

  function below<T>(prefix: string, read: (text: string) => T): T[] {
    return memory
      .entries()
      .filter(({ key }) => key.startsWith(`${prefix}/`))
      .map(({ value }) => read(value));
  }

  function seen(): Seen {
    const documents: Documents = {
      containers: below(proxyKeys.containers, (text) => decode(containerSchema, text)),
      nodes: below(proxyKeys.nodes, (text) => decode(proxyNodeSchema, text)),
      routes: below(proxyKeys.routes, (text) => decode(routeSchema, text)),
      links: below(proxyKeys.links, (text) => decode(storedLinkSchema, text)),
      services: below(proxyKeys.services, (text) => decode(serviceSettingsSchema, text)),
      certificates: below(proxyKeys.certificates, (text) => decode(storedCertificateSchema, text)),
      members: others.length === 0 ? null : alive,
    };
    const self = parseNodeName('host-1');
    const collected = collect(documents, self, Date.now());
    return { documents, collected, table: buildTable({ ...collected.records, generation: 1 }, self), problems };
  }

  async function serve(name: string, behaviour: Behaviour): Promise<void> {
    const own = memory.connect(name);
    for await (const entries of own.watch(`${proxyKeys.services}/`, stop.signal)) {
      if (behaviour.hangs) continue;
      const settings: readonly ServiceSettings[] = entries.map(({ value }) => decode(serviceSettingsSchema, value));
      const held = behaviour.acknowledges ? settings.flatMap(({ pause }) => pause ?? []) : [];
      const doc: ProxyNodeDoc = {
        ...{ name: parseNodeName(name), address: '192.0.2.1', version: 'test', startedAtMs: 1 },
        pauses: held.map(({ id }) => id),
        drains: held.flatMap(({ id, drain }) =>
          drain === null || behaviour.leaves === null
            ? []
            : [{ pause: id, untilMs: drain.untilMs, ...behaviour.leaves }],
        ),
        problems: behaviour.problems,
      };
      await own.transact([{ kind: 'set', key: proxyKeys.node(doc.name), value: JSON.stringify(doc) }]);
    }
  }

  const folder = await mkdtemp(join(tmpdir(), 'flock-proxy-api-'));
  const socketPath = join(folder, 'api.sock');
  const api = createProxyApi({
    ...{ store: () => store, seen, self: () => parseNodeName('host-1'), nowMs: Date.now },
    inFlight: async () => ({ requests: 3, tunnels: 2, held: 1 }),
    log: pino({ level: 'silent' }),
    reportMsMax: 300,
  });
  const server: Server = await listen(socketPath, api);
  for (const name of ['host-1', ...others]) {
    const behaviour: Behaviour = { acknowledges: true, hangs: false, leaves: nothing, problems: {} };
    behaviours.set(name, behaviour);
    running.push(serve(name, behaviour));
  }

  const commands = createCommands({ FLOCK_PROXY_SOCKET: socketPath });
  const cli = join(import.meta.dirname, '../../controller/cli/main.ts');
  return {
    ...{ socketPath, folder, store, seen, problems },
    /** What a node's proxy says from the next change of a service on. */
    behave(name: string, change: Partial<Behaviour>): void {
      Object.assign(behaviours.get(name) ?? {}, change);
    },
    /** A node of the cluster whose proxy has never run. */
    addMember: (name: string) => void alive.set(parseNodeName(name), { alive: true }),
    kill: (name: string) => void alive.set(parseNodeName(name), { alive: false }),
    async run(...containers: readonly ContainerDoc[]): Promise<void> {
      for (const doc of containers) {
        const key = proxyKeys.container(doc.node, doc.id);
        await store.transact([{ kind: 'set', key, value: JSON.stringify(doc) }]);
      }
    },
    flockctl: (...args: readonly string[]) => commands.run(process.execPath, [cli, ...args]),
    /** What a command that has to fail says. */
    async refused(...args: readonly string[]): Promise<string> {
      try {
        await commands.run(process.execPath, [cli, ...args]);
      } catch (error) {
        if (error instanceof CommandError && error.exitCode === 1) return error.stderr;
        throw error;
      }
      throw new Error(`flockctl ${args.join(' ')} was expected to fail`);
    },
    async dispose(): Promise<void> {
      stop.abort();
      await Promise.all(running);
      server.close();
      server.closeAllConnections();
      memory.close();
      await rm(folder, { recursive: true });
    },
  };
}
