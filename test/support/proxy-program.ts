import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { makeAuthority, makeKey } from '../../controller/cluster/ca.ts';
import { saveIdentity } from '../../controller/cluster/files.ts';
import { identify } from '../../controller/cluster/founding.ts';
import type { NodeName } from '../../controller/model/names.ts';
import type { MemoryStore } from '../../controller/store/memory.ts';
import type { ProxyApiParts } from '../../proxy/api/parts.ts';
import { type ProxyPaths, proxyPathsBelow } from '../../proxy/paths.ts';
import { run, type StackWorld } from '../../proxy/program.ts';
import {
  createFakeDocker,
  createFakeStack,
  createTestStore,
  type FakeDocker,
  type FakeStack,
  here,
  silent,
} from './proxy-fakes.ts';

/** The proxy's program in this process, with a Docker, a stack and a cluster's store that are fakes; files and sockets are real. */
export type ProxyProgram = {
  readonly paths: ProxyPaths;
  readonly docker: FakeDocker;
  /** Addresses of containers at which nothing listens yet. */
  readonly refusing: Set<string>;
  readonly cluster: MemoryStore;
  /** Of the newest start. */
  stack(): FakeStack;
  world(): StackWorld;
  api(): ProxyApiParts;
  /** Returns when it listens; nothing is served yet then. */
  start(): Promise<void>;
  /** As SIGTERM does. */
  stop(): Promise<void>;
  /** Makes the host a member, as the plugin does. */
  join(name?: NodeName): Promise<void>;
  /** Answers status and body. */
  ask(path: string): Promise<{ readonly status: number; readonly body: string }>;
  dispose(): Promise<void>;
};

export async function createProxyProgram(): Promise<ProxyProgram> {
  const root = await mkdtemp(join(tmpdir(), 'flock-proxy-'));
  const paths = proxyPathsBelow(root);
  for (const path of [paths.cluster, paths.certificates]) await mkdir(path, { recursive: true });
  await mkdir(dirname(paths.version), { recursive: true });
  const docker = createFakeDocker();
  const refusing = new Set<string>();
  const cluster = createTestStore();
  const web = { host: '127.0.0.1', port: await freePort() };
  let running: { readonly done: Promise<void>; readonly stop: AbortController } | null = null;
  let stack: FakeStack | null = null;
  let world: StackWorld | null = null;
  let api: ProxyApiParts | null = null;

  async function stop(): Promise<void> {
    const current = running;
    running = null;
    current?.stop.abort();
    await current?.done;
  }

  return {
    paths,
    docker,
    refusing,
    cluster,
    stack: () => started(stack),
    world: () => started(world),
    api: () => started(api),
    async start() {
      const listening = Promise.withResolvers<void>();
      const controller = new AbortController();
      const made = createFakeStack();
      stack = made;
      const done = run(
        {
          paths,
          makeStack(given) {
            world = given;
            return made;
          },
          makeApi(given) {
            api = given;
            listening.resolve();
            return (_request, response) => void response.end();
          },
          log: silent,
          docker,
          reach: async (address) => !refusing.has(address),
          web,
          home: {
            openCluster: () => cluster.connect('here'),
            ownAlone: async () => ({ node: here, address: '10.0.0.1', isMember: false }),
            retryMs: 20,
          },
          membershipPollMs: 20,
          times: {
            docker: { settleMs: 10, retryMs: 20 },
            serving: { retryMs: 50, graceMs: 300, dockerGraceMs: 600, tickMs: 2_000 },
          },
        },
        controller.signal,
      );
      running = { done, stop: controller };
      await Promise.race([listening.promise, done]);
    },
    stop,
    async join(name = here) {
      const authority = { clusterId: 'c1', ...makeAuthority('c1', Date.now()) };
      const request = {
        ...{ name, address: '10.0.0.1', port: 4270, labels: {} },
        ...{ storeAddress: 'http://127.0.0.1:8500', storeToken: null },
      };
      await saveIdentity(paths.cluster, identify('c1', authority, makeKey(), request, Date.now()));
    },
    async ask(path) {
      const response = await fetch(`http://${web.host}:${web.port}${path}`);
      return { status: response.status, body: await response.text() };
    },
    async dispose() {
      await stop();
      cluster.close();
      await rm(root, { recursive: true });
    },
  };
}

function started<T>(value: T | null): T {
  if (value === null) throw new Error('the program was not started');
  return value;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
