import type { InspectedWorkload } from '../model/inspected.ts';
import { lackingOn } from '../model/linking.ts';
import type { NodeName } from '../model/names.ts';
import type { WorkloadDoc } from '../model/workload.ts';
import type { Clock } from './home.ts';
import type { LocalContainer } from './local.ts';
import type { Seen } from './view.ts';

/** Which containers of this node have to wait for others before they are made or started. */
export type Order = {
  /** Of one to be made: the names of those that it is linked with and that are not here. `isForLong`: people should know. */
  lackingFor(doc: WorkloadDoc, seen: Seen): { readonly names: readonly string[]; readonly isForLong: boolean };
  /** Of one that was just made: whether one that must run before it is to run here, too, and does not yet. Not for ever. */
  isStartBlocked(made: InspectedWorkload, doc: WorkloadDoc, all: readonly LocalContainer[], seen: Seen): boolean;
  /** Others are forgotten. */
  keep(containers: ReadonlySet<string>, seen: Seen): void;
};

const waitMsMax = 60_000;

export function createOrder(node: NodeName, clock: Pick<Clock, 'bootMs'>): Order {
  /** By the ids of workloads, and of containers (boot clock). */
  const lackingSinceMs = new Map<string, number>();
  const madeSinceMs = new Map<string, number>();

  function lastsLong(sinceMs: Map<string, number>, id: string): boolean {
    const since = sinceMs.get(id) ?? clock.bootMs();
    sinceMs.set(id, since);
    return clock.bootMs() - since >= waitMsMax;
  }

  return {
    lackingFor(doc, { workloads }) {
      const names = lackingOn(
        node,
        doc,
        [...workloads.values()].map((stored) => stored.doc),
      );
      if (names.length > 0) return { names, isForLong: lastsLong(lackingSinceMs, doc.id) };
      lackingSinceMs.delete(doc.id);
      return { names, isForLong: false };
    },
    isStartBlocked({ Id: id, State: state }, doc, all, seen) {
      if (state.Status !== 'created' || lastsLong(madeSinceMs, id)) return false;
      const running = new Set<string>(
        all.filter(({ inspected }) => inspected.State.Status === 'running').map(({ inspected }) => inspected.Id),
      );
      return [...seen.workloads.values()].some(
        ({ doc: other }) =>
          doc.after.includes(other.name) &&
          other.node === node &&
          other.wanted === 'running' &&
          !(other.containerId !== null && running.has(other.containerId)),
      );
    },
    keep(containers, { workloads }) {
      for (const id of madeSinceMs.keys()) if (!containers.has(id)) madeSinceMs.delete(id);
      for (const id of lackingSinceMs.keys()) if (!workloads.has(id as WorkloadDoc['id'])) lackingSinceMs.delete(id);
    },
  };
}
