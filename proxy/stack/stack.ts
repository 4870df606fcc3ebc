import { setTimeout as sleep } from 'node:timers/promises';
import { FlockError, messageOf } from '../../controller/model/errors.ts';
import type { Gate } from '../gate/gate.ts';
import type { InFlight } from '../gate/services.ts';
import type { ServiceName } from '../model/names.ts';
import type { DrainTunnels } from '../model/records.ts';
import type { Listener, Table } from '../model/table.ts';
import type { Layer } from './layer.ts';

/**
 * The gate and the layers before it as one. A table goes to the gate first: what is paused is held before it is sent there, what is
 * released can pass before it is not sent there any more, and who listens does so before somebody is led there.
 */
export type Stack = {
  /**
   * Resolves when the table is served, or `problems` says what of it is not. Calls wait for each other. To be called again with the
   * newest table while there are problems; never rejects.
   */
  apply(table: Table): Promise<void>;
  /** By `Listener.key`, route, link, certificate, or `layer NAME` for a layer that could not be brought to the table at all. */
  problems(): ReadonlyMap<string, string>;
  /** The ids of the pauses that hold here: nothing new reaches their services except by a release. */
  pauses(): readonly string[];
  /** Of the newest table that every layer serves; 0: none yet. */
  generation(): number;
  inFlight(service: ServiceName): Promise<InFlight>;
  /**
   * Waits up to `timeoutMs` for requests in flight and for tunnels that end by themselves, then ends those that are left. For a paused
   * service. Answers what there was when the time was over, and how many tunnels were ended. Ends nothing, and rejects, as soon as
   * `pause` does not hold here any more: what runs then has been let in since. With `leave` only requests are waited for, and no
   * tunnel is ended.
   */
  drain(service: ServiceName, pause: string, timeoutMs: number, tunnels: DrainTunnels): Promise<Drained>;
  /** Lets what runs through the gate end for at most `graceMs`. What the layers serve stays. */
  close(graceMs: number): Promise<void>;
};

export type Drained = { readonly requests: number; readonly tunnels: number; readonly tunnelsClosed: number };

const pollMs = 50;

export function createStack({ gate, layers }: { readonly gate: Gate; readonly layers: readonly Layer[] }): Stack {
  let turn: Promise<void> = Promise.resolve();
  let generation = 0;
  /** Of the last table, whatever came of it. */
  let wanted: readonly string[] = [];
  let held: ReadonlySet<string> = new Set();
  let failures: ReadonlyMap<string, string> = new Map();

  async function serve(table: Table): Promise<void> {
    // A pause that is not wanted any more is over as soon as the gate has heard of it.
    wanted = [...table.services.values()].flatMap(({ pause }) => pause?.id ?? []);
    const status = await gate.apply(table);
    const failed = new Set(status.flatMap(({ key, state }) => (state === 'failed' ? [key] : [])));
    const carried = withoutOthersPorts(table, failed);
    const results = await Promise.allSettled(layers.map((layer) => layer.apply(carried)));
    failures = new Map(
      results.flatMap((result, index) =>
        result.status === 'fulfilled' ? [] : [[`layer ${layers[index]?.name}`, messageOf(result.reason)] as const],
      ),
    );
    if (failures.size > 0) return;
    held = new Set(wanted);
    generation = table.generation;
  }

  /** The gate knows best: a pause that has ended there, by itself say, does not begin again, whatever a later table wants. */
  function pauses(): readonly string[] {
    const holding = new Set(gate.pauses());
    return wanted.filter((id) => held.has(id) && holding.has(id));
  }

  async function inLayers(service: ServiceName): Promise<Pick<InFlight, 'requests' | 'tunnels'>> {
    const all = await Promise.all(layers.map((layer) => layer.inFlight(service)));
    return all.reduce((sum, one) => ({ requests: sum.requests + one.requests, tunnels: sum.tunnels + one.tunnels }), {
      requests: 0,
      tunnels: 0,
    });
  }

  async function inFlight(service: ServiceName): Promise<InFlight> {
    const own = gate.inFlight(service);
    const theirs = await inLayers(service);
    return { ...own, requests: own.requests + theirs.requests, tunnels: own.tunnels + theirs.tunnels };
  }

  return {
    apply(table) {
      turn = turn
        .then(() => serve(table))
        .catch((error: unknown) => {
          failures = new Map([['gate', messageOf(error)]]);
        });
      return turn;
    },
    problems() {
      const all = new Map<string, string>(failures);
      for (const status of gate.status()) if (status.state === 'failed') all.set(status.key, status.problem);
      for (const layer of layers) for (const [key, text] of layer.problems()) all.set(key, text);
      return all;
    },
    pauses,
    generation: () => generation,
    inFlight,
    async drain(service, pause, timeoutMs, tunnels) {
      const requirePause = () => {
        if (pauses().includes(pause)) return;
        throw new FlockError('invalid-request', `service ${service} is not paused any more, so it is not drained`);
      };
      const endMs = performance.now() + timeoutMs;
      const isBusy = (now: InFlight) => now.requests + (tunnels === 'wait' ? now.tunnels : 0) > 0;
      let left = await inFlight(service);
      while (isBusy(left) && performance.now() < endMs) {
        await sleep(Math.max(1, Math.min(pollMs, endMs - performance.now())));
        requirePause();
        left = await inFlight(service);
      }
      requirePause();
      if (tunnels === 'leave') return { requests: left.requests, tunnels: left.tunnels, tunnelsClosed: 0 };
      const [own, ...theirs] = await Promise.all([
        gate.drain(service, 0).then(({ tunnelsClosed }) => tunnelsClosed),
        ...layers.map((layer) => layer.cutTunnels(service)),
      ]);
      return {
        requests: left.requests,
        tunnels: left.tunnels,
        tunnelsClosed: theirs.reduce((sum, count) => sum + count, own),
      };
    },
    async close(graceMs) {
      await turn;
      await gate.close(graceMs);
      await Promise.all(layers.map((layer) => layer.close()));
    },
  };
}

/** A port that another program has stays that program's: the kernel would take it away. */
function withoutOthersPorts(table: Table, failed: ReadonlySet<string>): Table {
  const isOthers = (listener: Listener) =>
    listener.kind === 'tcp' && listener.from === null && failed.has(listener.key);
  const listeners = [...table.listeners].filter(([, listener]) => !isOthers(listener));
  return listeners.length === table.listeners.size ? table : { ...table, listeners: new Map(listeners) };
}
