import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import type { DockerEvent, DockerSource } from '../../controller/docker/source.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import { createMemoryStore, type MemoryStore } from '../../controller/store/memory.ts';
import type { DrainTunnels, Pause } from '../../proxy/model/records.ts';
import { emptyTable, type Table } from '../../proxy/model/table.ts';
import type { Drained, Stack } from '../../proxy/stack/stack.ts';

export const silent = pino({ level: 'silent' });
export const here = parseNodeName('here');
export const there = parseNodeName('there');

/** Of 64 digits, as Docker's are. */
export function idOf(digit: string): string {
  return digit.repeat(64).slice(0, 64);
}

/** What Docker says of a running container on the default bridge. */
export function dockerAnswer(id: string, name: string, labels: Readonly<Record<string, string>>, more: object = {}) {
  return {
    Id: id,
    Name: `/${name}`,
    Created: '2026-01-01T00:00:00.000000001Z',
    State: { Status: 'running', Pid: 4321, StartedAt: '2026-01-01T00:00:01Z' },
    Config: { Labels: labels },
    HostConfig: { NetworkMode: 'default' },
    HostsPath: `/var/lib/docker/containers/${id}/hosts`,
    NetworkSettings: { Networks: { bridge: { IPAddress: '172.17.0.2', Gateway: '172.17.0.1' } } },
    ...more,
  };
}

export type FakeDocker = DockerSource & {
  /** What it has, by id; tell with `changed`. */
  readonly containers: Map<string, ReturnType<typeof dockerAnswer>>;
  changed(id: string): void;
  /** From now on nothing is answered, and the events end. */
  away(isAway: boolean): void;
  /** Is waited for before it describes a container. */
  readonly beforeInspect: Map<string, () => Promise<void>>;
  readonly asked: { lists: number; inspections: number };
};

/** A Docker in this process. */
export function createFakeDocker(): FakeDocker {
  const containers: FakeDocker['containers'] = new Map();
  const asked = { lists: 0, inspections: 0 };
  const beforeInspect: FakeDocker['beforeInspect'] = new Map();
  let isAway = false;
  let queue: DockerEvent[] = [];
  let wake: () => void = () => {};
  const assertThere = () => {
    if (isAway) throw new Error('connect ECONNREFUSED /run/docker.sock');
  };
  return {
    containers,
    asked,
    beforeInspect,
    changed(id) {
      queue.push({ kind: 'changed', container: id, action: 'start', signal: null });
      wake();
    },
    away(next) {
      isAway = next;
      wake();
    },
    async list() {
      asked.lists += 1;
      assertThere();
      return [...containers.values()].map(({ Id: id, Name, Config }) => ({
        id,
        name: Name.slice(1),
        labels: Config.Labels,
        volumeDrivers: [],
        state: 'running',
        networkMode: 'default',
        networks: ['bridge'],
        ports: [],
      }));
    },
    async inspect(id) {
      asked.inspections += 1;
      assertThere();
      await beforeInspect.get(id)?.();
      return containers.get(id) ?? null;
    },
    async *events(signal) {
      assertThere();
      queue = [];
      yield { kind: 'connected' };
      while (!signal.aborted) {
        assertThere();
        const events = queue;
        queue = [];
        yield* events;
        if (queue.length > 0) continue;
        await new Promise<void>((resolve) => {
          wake = resolve;
          signal.addEventListener('abort', () => resolve(), { once: true });
        });
      }
    },
  };
}

export type FakeStack = Stack & {
  /** Those that it was given, the newest last. */
  readonly tables: Table[];
  /** The newest. */
  table(): Table;
  fail(problem: string | null): void;
  readonly drained: { readonly service: string; readonly timeoutMs: number; readonly tunnels: DrainTunnels }[];
};

/** A stack that serves whatever it is given at once. */
export function createFakeStack(left: Drained = { requests: 0, tunnels: 2, tunnelsClosed: 2 }): FakeStack {
  const tables: Table[] = [];
  const drained: FakeStack['drained'] = [];
  let problem: string | null = null;
  let served = emptyTable;
  const table = () => tables.at(-1) ?? emptyTable;
  return {
    tables,
    table,
    drained,
    fail(next) {
      problem = next;
    },
    async apply(next) {
      tables.push(next);
      if (problem === null) served = next;
    },
    problems: () => new Map(problem === null ? [] : [['layer haproxy', problem]]),
    pauses: () => [...served.services.values()].flatMap(({ pause }) => pause?.id ?? []),
    generation: () => served.generation,
    inFlight: async () => ({ requests: 0, tunnels: 0, held: 0 }),
    async drain(service, _pause, timeoutMs, tunnels) {
      drained.push({ service, timeoutMs, tunnels });
      return left;
    },
    close: async () => {},
  };
}

/** A cluster's store with the real clock. `close` it. */
export function createTestStore(): MemoryStore {
  const clock = {
    nowMs: () => Date.now(),
    sleep: (ms: number, signal?: AbortSignal) => sleep(ms, undefined, { signal, ref: false }).catch(() => {}),
  };
  return createMemoryStore({ clock, random: Math.random, timeoutMs: 300 });
}

export function pauseFor(ms: number, id = 'pause-1', drainMs: number | null = null): Pause {
  const nowMs = Date.now();
  return { id, untilMs: nowMs + ms, drain: drainMs === null ? null : { untilMs: nowMs + drainMs, tunnels: 'wait' } };
}
