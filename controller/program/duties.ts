import { z } from 'zod';
import { keys } from '../model/cluster.ts';
import type { NodeName } from '../model/names.ts';
import {
  decodeWorkload,
  type FormerContainer,
  placedOn,
  type WorkloadDoc,
  type WorkloadId,
  workloadKeys,
} from '../model/workload.ts';
import { isLeftBehind, remove, write } from './documents.ts';
import type { Home } from './home.ts';
import { putAway } from './putting-away.ts';
import type { Reviver } from './reviver.ts';
import type { Stored } from './view.ts';

/**
 * What a node does about one workload, begun on what was seen and done on a fresh look: the store may have changed since, and then
 * nothing is done. Each may be repeated, and rejects when it has failed.
 */
export type Duties = {
  /** Its container is gone: a person has removed it. */
  forget(doc: WorkloadDoc): Promise<void>;
  /** Of a dead node: it is this node's from now on, if `others`, by which that was decided, are still as they were seen. */
  claim(doc: WorkloadDoc, why: string, others: readonly Stored<WorkloadDoc>[]): Promise<void>;
  /** Its container is to be made here. */
  make(doc: WorkloadDoc, images: readonly NodeName[], signal: AbortSignal): Promise<void>;
  /** Its node has left the cluster, and it is to run nowhere else. */
  drop(doc: WorkloadDoc): Promise<void>;
  /** On a host that is in no cluster, and had another name: it is this node's. */
  adopt(doc: WorkloadDoc): Promise<void>;
  start(doc: WorkloadDoc, why: string): Promise<void>;
  putAway(doc: WorkloadDoc, former: FormerContainer): Promise<void>;
  /** A container was made here for a move that ended without it. */
  clear(containerId: string, workload: WorkloadId): Promise<void>;
};

const leftSchema = z.object({ Name: z.string(), Image: z.string(), State: z.object({ Status: z.string() }) });

/** A transaction of the store holds 64 operations. */
const othersMax = 60;

export function createDuties(home: Home, reviver: Pick<Reviver, 'start'>): Duties {
  const { node, store, docker, images, maker, events, clock, log } = home;

  /** Null: it is not as it was seen, where that matters. */
  async function fresh(seen: WorkloadDoc, move: string | null = null): Promise<Stored<WorkloadDoc> | null> {
    const entry = await store.get(workloadKeys.workload(seen.id), { fresh: true });
    if (entry === null) return null;
    const doc = decodeWorkload(entry.value);
    const isSame =
      doc.node === seen.node && doc.epoch === seen.epoch && doc.containerId === seen.containerId && doc.move === move;
    return isSame && doc.wanted === seen.wanted ? { doc, index: entry.index } : null;
  }

  return {
    async forget(seen) {
      const current = await fresh(seen);
      if (current === null || seen.containerId === null || (await docker.inspect(seen.containerId)) !== null) return;
      if (await remove(store, current))
        log.info({ event: 'workload.removed', name: seen.name }, 'its container was removed');
    },

    async claim(seen, why, others) {
      const current = await fresh(seen);
      if (current === null) return;
      // It was here before, and was not put away yet. The document forgets it now, so this is the last chance to do that.
      const own = current.doc.former.find((former) => former.node === node);
      if (own?.why === 'moved') await putAway(docker, current.doc, own);
      const isHere = own?.why === 'left' && (await docker.inspect(own.containerId)) !== null;
      const next = placedOn(current.doc, node, isHere ? own.containerId : null, 'left');
      // placedOn counts the revision itself.
      // Its end was flock's doing, if Docker has not started it by itself.
      const stoppedByFlockAtMs = isHere ? Math.round(clock.nowMs()) : undefined;
      const placed = { ...next, stoppedByFlockAtMs, revision: current.doc.revision };
      if (!(await write(store, placed, current.index, others.slice(0, othersMax)))) return;
      log.info({ event: 'workload.claimed', name: seen.name, from: seen.node, reason: why }, 'this node makes it');
      if (isHere) events.tell('recreated', seen.name, `its container of before on ${node} is used again: ${why}`);
    },

    async make(seen, from, signal) {
      if ((await fresh(seen)) === null) return;
      await images.ensure(seen, from, signal);
      const id = await maker.make(seen);
      const current = await fresh(seen);
      if (current === null) {
        const entry = await store.get(workloadKeys.workload(seen.id), { fresh: true });
        // Another node has it by now, or it is to run no more.
        if (entry === null || decodeWorkload(entry.value).containerId !== id) await docker.remove(id);
        return;
      }
      if (!(await write(store, { ...current.doc, containerId: id }, current.index))) return;
      log.info({ event: 'workload.made', name: seen.name, container: id }, 'container made');
      const before = seen.former.at(-1)?.node;
      events.tell(
        'recreated',
        seen.name,
        `made on ${node}${before === undefined ? '' : `, after it was on ${before}`}`,
      );
    },

    async drop(seen) {
      const current = await fresh(seen);
      // One that can't be read is there all the same.
      const home = await store.get(keys.node(seen.node), { fresh: true });
      if (current === null || home !== null || !(await remove(store, current))) return;
      log.info({ event: 'workload.dropped', name: seen.name, node: seen.node }, 'its node has left the cluster');
    },

    async adopt(seen) {
      const current = await fresh(seen);
      if (current !== null) await write(store, { ...current.doc, node }, current.index);
    },

    async start(seen, why) {
      const { containerId } = seen;
      if (containerId !== null && (await fresh(seen, seen.move)) !== null) await reviver.start(seen, containerId, why);
    },

    async putAway(seen, former) {
      const entry = await store.get(workloadKeys.workload(seen.id), { fresh: true });
      if (entry === null) return;
      const doc = decodeWorkload(entry.value);
      const isFormer = doc.former.some((one) => one.node === node && one.containerId === former.containerId);
      // It may be used again: by a move that turns back, or since this node has it once more.
      if (!isFormer || doc.move !== null || doc.containerId === former.containerId) return;
      const done = await putAway(docker, doc, former);
      const rest = doc.former.filter((one) => one.node !== node || one.containerId !== former.containerId);
      if (!(await write(store, { ...doc, former: rest }, entry.index))) return;
      if (done !== null) events.tell('put-away', doc.name, done);
    },

    async clear(containerId, workload) {
      const entry = await store.get(workloadKeys.workload(workload), { fresh: true });
      const found = leftSchema.safeParse(await docker.inspect(containerId)).data;
      const doc = entry === null ? null : decodeWorkload(entry.value);
      if (entry === null || doc === null || found === undefined || !isLeftBehind(found, doc, node)) return;
      // Whoever begins a move just now has to look again, and comes too late to use it.
      if (!(await write(store, doc, entry.index))) return;
      if (found.State.Status !== 'created') {
        const done = await putAway(docker, doc, { containerId, why: 'left' });
        if (done !== null) events.tell('put-away', doc.name, done);
        return;
      }
      await docker.remove(containerId);
      const text = `removed on ${node}: it was made for a move that came to nothing, and has never run`;
      log.info({ event: 'leftover.removed', container: containerId, name: doc.name }, text);
      events.tell('put-away', doc.name, text);
    },
  };
}
