import { FlockError, hasCode, messageOf } from '../../../controller/model/errors.ts';
import { type Certificate, certificatesOf } from '../../certificates.ts';
import { defaultLimits, type GateLimits } from '../../gate/limits.ts';
import type { Table } from '../../model/table.ts';
import type { Layer } from '../layer.ts';
import { checkCertificate } from './certificates.ts';
import { afterChanges, changesOf, toldWhileStopping } from './changes.ts';
import { renderConfiguration } from './configuration.ts';
import { createFiles } from './files.ts';
import { layoutBelow } from './layout.ts';
import { createMaster } from './master.ts';
import { makePlan, ownersOf, type Plan } from './plan.ts';
import { findBlocked, hasIpv6 } from './ports.ts';
import type { RequestLog } from './request-log.ts';
import type { Slots } from './slots.ts';
import { backendNames, type Pem, slotOf, type Wanted } from './wanted.ts';
import { createWorkers, type Worker } from './workers.ts';

export type HaproxyParts = {
  /** Of HAProxy's files, and of the gate's sockets; HAProxy sees them by the same paths. */
  readonly folder: string;
  readonly gateFolder: string;
  readonly certificate: (name: string) => Certificate | null;
  readonly limits?: Partial<GateLimits>;
  /** Where HAProxy tells of its requests. */
  readonly log: () => RequestLog;
  readonly nowMs?: () => number;
};

/**
 * HTTP, https and TLS by HAProxy, which runs in a container of its own and is driven over its master's socket.
 *
 * INVARIANTS
 * - The files say the table before HAProxy is told, so that it comes up with the newest whenever it is started.
 * - A backend ("slot") is one service's until all its servers are gone from all workers: no request gets to another's containers.
 * - Servers are never changed: a new address is a new server, and the old one goes when its last request has ended.
 * - Workers that a reload has left behind are told the same as the current one: their clients' next requests are theirs, too.
 */
export function createHaproxyLayer(parts: HaproxyParts): Layer {
  const limits: GateLimits = { ...defaultLimits, ...parts.limits };
  const layout = layoutBelow(parts.folder, parts.gateFolder);
  const files = createFiles(layout);
  const workers = createWorkers(createMaster(layout.masterSocket), layout);
  const nowMs = parts.nowMs ?? (() => performance.now());
  const owners = new Map<string, string>();
  let ipv6: boolean | null = null;
  let slots: Slots | null = null;
  let problems: ReadonlyMap<string, string> = new Map();
  let awaySinceMs: number | null = null;
  let sweeping: NodeJS.Timeout | null = null;
  let refused: { readonly attempt: string; readonly atMs: number; readonly text: string } | null = null;
  let isClosed = false;
  let last: Promise<unknown> = Promise.resolve();

  /** One after the other: what runs in between relies on what the one before has left. */
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const run = last.then(work, work);
    last = run.catch(() => {});
    return run;
  }

  /** Null: HAProxy does not run. */
  async function observe(): Promise<readonly Worker[] | null> {
    try {
      const found = await workers.observe();
      awaySinceMs = null;
      return found;
    } catch (error) {
      if (!hasCode(error, 'not-ready')) throw error;
      awaySinceMs ??= nowMs();
      return null;
    }
  }

  /** Ports that HAProxy has open, or is about to open: it may just be starting. */
  async function openPorts(found: readonly Worker[] | null): Promise<ReadonlySet<number>> {
    if (found !== null) return portsOf(found.filter(({ isOld }) => !isOld).flatMap(({ had }) => [...had.maps.keys()]));
    // It does not come up; perhaps for a port that another program has taken.
    if (awaySinceMs !== null && nowMs() - awaySinceMs > startMsMax) return new Set();
    return portsOf(await files.mapsOnDisk());
  }

  /** By key of the listener. */
  async function blockedOf(table: Table, found: readonly Worker[] | null): Promise<ReadonlyMap<string, string>> {
    const open = await openPorts(found);
    const fresh = [...table.listeners.values()].filter(({ kind, port }) => kind !== 'tcp' && !open.has(port));
    const blocked = await findBlocked(fresh.map(({ port }) => port));
    return new Map(
      fresh.flatMap(({ key, port }) => {
        const problem = blocked.get(port);
        return problem === undefined ? [] : [[key, problem] as const];
      }),
    );
  }

  function pemsOf(table: Table, found: Map<string, string>): ReadonlyMap<string, Pem> {
    const pems = new Map<string, Pem>();
    for (const name of certificatesOf(table.listeners.values())) {
      const checked = checkCertificate(name, parts.certificate(name));
      if ('problem' in checked) found.set(`certificate ${name}`, checked.problem);
      else pems.set(name, checked);
    }
    return pems;
  }

  async function applyNow(table: Table): Promise<void> {
    ipv6 ??= await hasIpv6();
    slots ??= await files.readSlots();
    let found = await observe();
    const blocked = await blockedOf(table, found);
    const newProblems = new Map(blocked);
    const certificates = pemsOf(table, newProblems);
    const isBusy = busyIn(found ?? []);
    const plan = makePlan({ table, slots, isBusy, certificates, blocked: new Set(blocked.keys()) });
    const { text, digest } = renderConfiguration(plan.wanted, { layout, limits, hasIpv6: ipv6, log: parts.log() });
    await files.write(plan.wanted, plan.slots, text);
    remember(plan);
    problems = newProblems;
    if (found === null)
      throw new FlockError(
        'not-ready',
        `HAProxy does not answer at ${layout.masterSocket}: its container (flock-haproxy) is to be started, and comes up with this table`,
      );
    const current = found.find(({ isOld }) => !isOld);
    if (current !== undefined && current.info.description !== digest) {
      // A refused one is not tried again on the same worker: HAProxy counts each try as a reload, and ends workers with too many.
      const attempt = `${digest} ${current.pid}`;
      if (refused?.attempt !== attempt || nowMs() - refused.atMs > refusedMs) {
        refused = await workers.reload().then(
          () => null,
          (error: unknown) => ({ attempt, atMs: nowMs(), text: messageOf(error) }),
        );
        found = await workers.observe();
      }
      // What needs no reload is served all the same; pauses, most of all.
      if (refused !== null) problems = new Map([...newProblems, ['haproxy', refused.text]]);
    } else refused = null;
    for (const worker of found) await bring(worker, plan.wanted);
    scheduleSweep(found);
  }

  async function bring(worker: Worker, wanted: Wanted): Promise<void> {
    const { had } = worker;
    if (!worker.info.isStopping) {
      await workers.change(worker, changesOf(had, wanted, layout, limits), afterChanges(had, wanted));
      return;
    }
    const told = toldWhileStopping(had, wanted);
    const maps = { maps: had.maps, servers: new Map() };
    const after = { ...afterChanges(maps, told), servers: had.servers };
    await workers.change(worker, changesOf(maps, told, layout, limits), after);
  }

  function remember(plan: Plan): void {
    slots = plan.slots;
    for (const [slot, service] of ownersOf(plan.slots)) owners.set(slot, service);
  }

  function scheduleSweep(found: readonly Worker[]): void {
    if (found.some(hasLeaving)) sweepSoon();
  }

  function sweepSoon(): void {
    if (isClosed || sweeping !== null) return;
    sweeping = setTimeout(() => {
      sweeping = null;
      // HAProxy may be away.
      inTurn(sweep).catch(sweepSoon);
    }, sweepMs);
    sweeping.unref();
  }

  async function sweep(): Promise<void> {
    const found = await workers.observe();
    for (const worker of found) await workers.sweep(worker);
    scheduleSweep(found);
  }

  const slotsOf = (service: string) => [...owners].filter(([, owner]) => owner === service).map(([slot]) => slot);
  const tunnelsOf = (service: string) =>
    slotsOf(service).map((slot) => (slot.startsWith('h') ? backendNames.upgrades(slot) : slot));

  return {
    name: 'haproxy',
    apply: (table) => inTurn(() => applyNow(table)),
    problems: () => problems,
    async inFlight(service) {
      const requests = slotsOf(service).filter((slot) => slot.startsWith('h'));
      return {
        requests: await workers.sessions(requests),
        tunnels: await workers.sessions(tunnelsOf(service)),
      };
    },
    cutTunnels: (service) => workers.cut(tunnelsOf(service)),
    async close() {
      isClosed = true;
      if (sweeping !== null) clearTimeout(sweeping);
      await last;
    },
  };
}

/** How long HAProxy may take to come up. */
const startMsMax = 3_000;
/** After so long a configuration that was not taken is tried once more: it may have been for want of time. */
const refusedMs = 30_000;
/** Old servers have idle connections for some seconds. */
const sweepMs = 1_000;

function hasLeaving({ had, info }: Worker): boolean {
  if (info.isStopping) return false;
  for (const servers of had.servers.values())
    for (const { isDisabled } of servers.values()) if (isDisabled) return true;
  return false;
}

function busyIn(found: readonly Worker[]): (kind: string, index: number) => boolean {
  const busy = new Set<string>();
  for (const { had } of found)
    for (const [backend, servers] of had.servers) if (servers.size > 0) busy.add(slotOf(backend));
  return (kind, index) => busy.has(`${kind}${index}`);
}

/** A listener's maps have the name of its port. */
function portsOf(maps: readonly string[]): ReadonlySet<number> {
  return new Set(
    maps.flatMap((name) => {
      const [, port] = /^(?:http|tls)-(\d+)$/.exec(name) ?? [];
      return port === undefined ? [] : [Number(port)];
    }),
  );
}
