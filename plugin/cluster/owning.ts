import type { NodeName } from '../../controller/model/names.ts';
import { trashedOf } from '../../controller/model/ownership.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { State } from '../state.ts';
import type { Ownership } from '../volumes/ownership.ts';
import type { Directory } from './directory.ts';
import type { Obtaining } from './obtaining.ts';
import type { Peers } from './ports.ts';
import type { Replicator } from './replicator.ts';
import type { Transitions } from './transitions.ts';

export type OwnershipParts = {
  readonly node: NodeName;
  readonly state: State;
  readonly directory: Directory;
  readonly transitions: Transitions;
  readonly replicator: Replicator;
  readonly peers: Peers;
  readonly obtaining: Obtaining;
};

/** What the use cases of volumes ask and tell, on a node of a cluster. */
export function createOwnership(parts: OwnershipParts): Ownership {
  const { node, state, directory, transitions, replicator, peers, obtaining } = parts;

  async function claim(record: VolumeRecord): Promise<VolumeRecord> {
    const doc = await transitions.claim(record);
    return { ...record, epoch: doc.epoch };
  }

  async function publish(record: VolumeRecord): Promise<void> {
    const doc = await transitions.setTrashed(record.id, trashedOf(record), record.name);
    if (JSON.stringify(doc.options) !== JSON.stringify(record.options))
      await transitions.update(record.id, (current) => ({ ...current, options: record.options }));
  }

  return {
    elsewhere: (name) => {
      const doc = directory.byName(name)?.doc;
      return doc === undefined || state.byName(name) !== undefined ? null : doc;
    },
    all: () =>
      [...directory.volumes()].flatMap(({ doc }) =>
        doc.trashed === null && state.byName(doc.name)?.id !== doc.id ? [doc] : [],
      ),
    copies: replicator.status,
    adopt(record) {
      if (!directory.complete()) return null;
      const doc = directory.volume(record.id)?.doc;
      if (doc === undefined) return record;
      if (doc.owner === node) return { ...record, epoch: doc.epoch };
      return { ...record, phase: { kind: 'replica', owner: doc.owner, stashing: null } };
    },
    claim,
    obtain: obtaining.obtain,
    assure: obtaining.assure,
    publish,
    async restore(record) {
      // What a rollback has replaced was never published.
      const seen = await directory.look(record.id);
      if (seen === null) return await claim(record);
      await publish(record);
      return { ...record, epoch: Math.max(record.epoch, seen.doc.epoch) };
    },
    withdraw: (record) => transitions.withdraw(record),
    touched: (id) => replicator.touch(id),
    forward: (doc, request, signal) => peers.forward(doc.owner, request, signal),
  };
}
