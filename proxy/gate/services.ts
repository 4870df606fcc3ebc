import { FlockError } from '../../controller/model/errors.ts';
import { parseServiceName, type ServiceName } from '../model/names.ts';
import type { Endpoint, Table, TableService } from '../model/table.ts';
import { type Backend, type Backends, choose, renewBackends } from './backends.ts';
import type { GateLimits } from './limits.ts';
import { createQueue, type Queue, type Refusal, type Visitor } from './queue.ts';

/**
 * What the gates for HTTP and TCP share: who serves a service, and whether it is paused.
 *
 * INVARIANTS
 * - Whoever enters a paused service, or one whose queue is not empty, waits behind those that came before.
 * - Whoever has entered is counted until `done`, as a request, or after `becomeTunnel` as a tunnel.
 * - A pause always ends: by `release`, by a table without it, or at its deadline.
 */
export type Services = {
  apply(table: Table): void;
  /** Calls `go` at once, or later in turn, or `refuse`: exactly one of them once, unless `leave` of what it returns comes first. */
  enter(visitor: Visitor<Pass>): { leave(): void };
  /** Holds what is new from now on, for at most `deadlineMs` (and `pauseMsMax`). A further pause replaces the deadline. */
  pause(service: string, options: { readonly deadlineMs: number }): void;
  /** Ends a pause. `upstreams` by port of the container take the place of the table's until the next table; null: the table's. */
  release(service: string, upstreams: ReadonlyMap<number, readonly Endpoint[]> | null): void;
  /** The ids of the pauses of tables that hold now. */
  pauses(): readonly string[];
  inFlight(service: string): InFlight;
  /**
   * Waits up to `timeoutMs` for the requests in flight and for tunnels that end by themselves, then ends the others, politely
   * first. Answers what was left of both. Meant for a paused service: without a pause new ones keep coming.
   */
  drain(service: string, timeoutMs: number): Promise<InFlight & { readonly tunnelsClosed: number }>;
  /** Refuses what is held and ends all timers. */
  close(): void;
};

/** `held`: waiting, so neither in flight nor a tunnel. */
export type InFlight = { readonly requests: number; readonly tunnels: number; readonly held: number };

/** The right to use a service, for one request or connection. */
export type Pass = {
  /** A backend that this pass has not tried yet; null: there is none (left). The one before counts as given back. */
  next(port: number): Backend | null;
  /** The current backend took no connection. */
  failed(): void;
  /** From now on it is no request in flight. `end` closes it politely, `cut` at once. */
  becomeTunnel(tunnel: Tunnel): void;
  /** May be called repeatedly. */
  done(): void;
};

export type Tunnel = { end(): void; cut(): void };

type Gated = {
  table: TableService;
  /** Given by a release; until the next table. */
  given: ReadonlyMap<number, readonly Endpoint[]> | null;
  /** Of when the pause began: what a pause that ended by itself falls back to. */
  before: ReadonlyMap<number, readonly Endpoint[]>;
  backends: Map<number, Backends>;
  readonly queue: Queue<Pass>;
  pause: { readonly id: string | null; readonly timer: NodeJS.Timeout } | null;
  /** The last pause of a table that is over; it does not begin again. */
  pauseEnded: string | null;
  requests: number;
  readonly tunnels: Set<Tunnel>;
  readonly drains: Set<() => void>;
};

export function createServices(limits: GateLimits, nowMs: () => number = Date.now): Services {
  const services = new Map<ServiceName, Gated>();

  const find = (name: string): Gated => {
    const service = services.get(parseServiceName(name));
    if (service !== undefined) return service;
    throw new FlockError('invalid-request', `the proxy knows no service "${name}": see "flockctl service ls"`);
  };

  function renew(service: Gated): void {
    const endpoints = service.given ?? service.table.endpoints;
    const old = service.backends;
    service.backends = new Map([...endpoints].map(([port, list]) => [port, renewBackends(old.get(port), list)]));
    for (const [port, { all }] of old) if (!endpoints.has(port)) for (const backend of all) backend.retire?.();
  }

  function make(table: TableService): Gated {
    const service: Gated = {
      table,
      given: null,
      before: table.endpoints,
      backends: new Map(),
      queue: createQueue(limits, () => passOf(service)),
      pause: null,
      pauseEnded: null,
      requests: 0,
      tunnels: new Set(),
      drains: new Set(),
    };
    return service;
  }

  function hold(service: Gated, id: string | null, durationMs: number): void {
    if (service.pause === null) service.before = service.given ?? service.table.endpoints;
    else clearTimeout(service.pause.timer);
    const timer = setTimeout(
      () => {
        // Whoever paused it has died. Where the table has nobody any more, those from before the pause are worth a try.
        const hasSome = [...service.table.endpoints.values()].some((list) => list.length > 0);
        service.given = hasSome ? null : service.before;
        open(service);
      },
      Math.max(0, Math.min(durationMs, limits.pauseMsMax)),
    );
    service.pause = { id, timer };
    service.queue.close();
  }

  function open(service: Gated): void {
    if (service.pause === null) return;
    clearTimeout(service.pause.timer);
    service.pauseEnded = service.pause.id ?? service.pauseEnded;
    service.pause = null;
    renew(service);
    service.queue.open();
  }

  function passOf(service: Gated): Pass & { onSettled: (() => void) | null } {
    let backend: Backend | null = null;
    let tunnel: Tunnel | null = null;
    let isDone = false;
    const tried: Backend[] = [];
    service.requests += 1;
    const giveBack = () => {
      if (backend !== null) backend.active -= 1;
      backend = null;
    };
    const settled = () => {
      pass.onSettled?.();
      pass.onSettled = null;
    };
    const pass: Pass & { onSettled: (() => void) | null } = {
      onSettled: null,
      next(port) {
        giveBack();
        const backends = service.backends.get(port);
        if (isDone || backends === undefined || tried.length >= limits.attemptsMax) return null;
        backend = choose(backends, service.table.balance, tried, nowMs());
        if (backend === null) return null;
        backend.active += 1;
        tried.push(backend);
        return backend;
      },
      failed() {
        if (backend !== null) backend.coolUntilMs = nowMs() + limits.coolDownMs;
      },
      becomeTunnel(made) {
        if (isDone || tunnel !== null) return;
        tunnel = made;
        service.tunnels.add(made);
        service.requests -= 1;
        settled();
        tell(service);
      },
      done() {
        if (isDone) return;
        isDone = true;
        giveBack();
        if (tunnel === null) service.requests -= 1;
        else service.tunnels.delete(tunnel);
        settled();
        if (service.drains.size > 0) tell(service);
      },
    };
    return pass;
  }

  return {
    apply(table) {
      for (const [name, next] of table.services) {
        const service = services.get(name) ?? make(next);
        services.set(name, service);
        service.table = next;
        service.given = null;
        renew(service);
        const { pause } = service;
        if (next.pause === null) {
          // A pause that was asked for directly has no id and is not the table's to end.
          if (pause !== null && pause.id !== null) open(service);
        } else if (pause?.id !== next.pause.id && service.pauseEnded !== next.pause.id) {
          hold(service, next.pause.id, next.pause.untilMs - nowMs());
        }
      }
      for (const [name, service] of services) {
        if (table.services.has(name)) continue;
        services.delete(name);
        end(service, 'no-service');
      }
    },
    enter(visitor) {
      const service = services.get(visitor.service);
      if (service !== undefined) return service.queue.enter(visitor);
      visitor.refuse('no-service');
      return { leave() {} };
    },
    pause(name, { deadlineMs }) {
      const service = find(name);
      hold(service, service.pause?.id ?? null, deadlineMs);
    },
    release(name, upstreams) {
      const service = find(name);
      service.given = upstreams;
      if (service.pause === null) renew(service);
      open(service);
    },
    pauses: () => [...services.values()].flatMap(({ pause }) => pause?.id ?? []),
    inFlight: (name) => stateOf(find(name)),
    async drain(name, timeoutMs) {
      const service = find(name);
      await waitUntil(service, timeoutMs, () => service.requests === 0 && service.tunnels.size === 0);
      const tunnels = [...service.tunnels];
      for (const tunnel of tunnels) tunnel.end();
      await waitUntil(service, limits.tunnelEndMsMax, () => service.tunnels.size === 0);
      for (const tunnel of tunnels) if (service.tunnels.has(tunnel)) tunnel.cut();
      return { ...stateOf(service), tunnelsClosed: tunnels.length };
    },
    close() {
      for (const service of services.values()) end(service, 'closing');
      services.clear();
    },
  };
}

function end(service: Gated, refusal: Refusal): void {
  if (service.pause !== null) clearTimeout(service.pause.timer);
  service.pause = null;
  service.queue.clear(refusal);
  for (const { all } of service.backends.values()) for (const backend of all) backend.retire?.();
  service.backends.clear();
}

function stateOf(service: Gated): InFlight {
  return { requests: service.requests, tunnels: service.tunnels.size, held: service.queue.size() };
}

function tell(service: Gated): void {
  for (const wake of service.drains) wake();
}

function waitUntil(service: Gated, timeoutMs: number, isReached: () => boolean): Promise<void> {
  if (isReached()) return Promise.resolve();
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      service.drains.delete(wake);
      resolve();
    };
    const wake = () => {
      if (isReached()) finish();
    };
    const timer = setTimeout(finish, timeoutMs);
    service.drains.add(wake);
  });
}
