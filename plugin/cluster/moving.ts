import type { Logger } from 'pino';
import { keys } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { Operation, SessionId, Store } from '../../controller/store/store.ts';
import { type CopyJobs, type CopyRound, createCopyJobs } from './copy-jobs.ts';
import type { ExtraCopies } from './extra-copies.ts';
import { createHand, type HandParts } from './handing.ts';
import { createHandoffs, type Handoffs } from './handoff.ts';
import { createKeptVolumes } from './kept-volumes.ts';
import type { Peers } from './ports.ts';

/** How volumes of this node get to another one while somebody watches over it: the handoff to a peer, and what a controller's moves need. */
export type Moving = {
  readonly handoff: Handoffs['hand'];
  /** Hands all of them over, with the other changes, or none. Answers the new epochs in the same order. */
  handOver(request: {
    readonly records: readonly VolumeRecord[];
    readonly to: NodeName;
    readonly also: readonly Operation[];
    readonly deadlineMs: number;
  }): Promise<readonly number[]>;
  copyRound(record: VolumeRecord, to: NodeName, signal: AbortSignal): Promise<CopyRound>;
  estimate(record: VolumeRecord, to: NodeName, signal: AbortSignal): ReturnType<CopyJobs['estimate']>;
};

export type MovingParts = HandParts & {
  readonly node: NodeName;
  readonly store: Store;
  readonly peers: Peers;
  readonly usedBytes: (id: DatasetId) => number | null;
  /** Ends when the node stops. */
  readonly signal: AbortSignal;
  readonly extras: ExtraCopies;
  readonly log: Logger;
};

export function createMoving(parts: MovingParts): Moving {
  const { node, store, directory } = parts;
  const kept = createKeptVolumes(store, node);
  const handoffs = createHandoffs({ ...parts, hand: createHand(parts), refuseKept: kept.refuse });
  const copies = createCopyJobs({ ...parts, isMoving: kept.isMoving });

  /** Throws why nothing can be brought to that node. */
  function checkTarget(to: NodeName): void {
    const target = directory.node(to);
    if (target === null)
      throw new FlockError('node-not-found', `the cluster has no node ${to}: "flockctl node ls" shows them`);
    if (to === node)
      throw new FlockError('invalid-request', `the volumes are on node ${to} already: name another node`);
    if (target.alive === null) throw notAlive(to);
    if (target.doc.poolLost === true)
      throw new FlockError('node-unreachable', `the pool of node ${to} has failed: "flockctl events" says why`);
    const format = directory.node(node)?.doc.format;
    if (format !== undefined && format !== target.doc.format)
      throw new FlockError(
        'no-place',
        `node ${to} keeps volumes on ${target.doc.format}, this one on ${format}: volumes can't be brought there`,
      );
  }

  /** What that node locks with, as the store knows it now. */
  async function sessionOf(to: NodeName): Promise<SessionId> {
    const alive = await store.get(keys.alive(to), { fresh: true });
    if (alive === null || alive.session === null) throw notAlive(to);
    return alive.session;
  }

  return {
    handoff: handoffs.hand,
    async handOver({ records, to, also, deadlineMs }) {
      checkTarget(to);
      const ids = records.map(({ id }) => id);
      const docs = await handoffs.handAll({ ids, to, session: () => sessionOf(to), also, deadlineMs });
      return docs.map(({ epoch }) => epoch);
    },
    async copyRound(record, to, signal) {
      checkTarget(to);
      return await copies.round(record, to, signal);
    },
    async estimate(record, to, signal) {
      checkTarget(to);
      return await copies.estimate(record, to, signal);
    },
  };
}

function notAlive(node: NodeName): FlockError {
  return new FlockError('node-unreachable', `node ${node} does not answer: "flockctl node ls" shows it`);
}
