import type { Logger } from 'pino';
import { FlockError } from '../../controller/model/errors.ts';
import { type NodeName, quote, type VolumeName } from '../../controller/model/names.ts';
import { parseReplicationSnapshot } from '../../controller/model/replication.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { Locks } from '../locks.ts';
import type { State } from '../state.ts';
import type { Storage } from '../storage/storage.ts';
import type { Directory, SeenVolume } from './directory.ts';
import type { Duties } from './duties.ts';
import type { Clock, CopyState, Peers } from './ports.ts';
import type { Promises } from './promises.ts';
import type { Transitions } from './transitions.ts';

/** How a copy becomes the volume when its owner is gone, on a person's word. */
export type Takeover = {
  /** Throws `owner-dead` with what is still to be waited for, `not-owner` if somebody was faster, `no-place` if this node may not. */
  take(name: VolumeName, options: { readonly force: boolean }, signal: AbortSignal): Promise<VolumeRecord>;
};

export type TakeoverParts = {
  readonly node: NodeName;
  readonly storage: Storage;
  readonly state: State;
  readonly locks: Locks;
  readonly clock: Clock;
  readonly peers: Peers;
  readonly directory: Directory;
  readonly transitions: Transitions;
  readonly promises: Promises;
  readonly duties: Duties;
  readonly guardMs: number;
  readonly log: Logger;
};

/** How good a copy is: first by epoch, then by the snapshot's place in it. Never by the time on a clock of another epoch. */
export function positionOf(
  snapshots: CopyState['snapshots'],
): { readonly epoch: number; readonly timeMs: number } | null {
  const positions = (snapshots ?? []).flatMap(({ name }) => parseReplicationSnapshot(name) ?? []);
  return positions.reduce<{ epoch: number; timeMs: number } | null>(
    (best, one) =>
      best === null || one.epoch > best.epoch || (one.epoch === best.epoch && one.timeMs > best.timeMs) ? one : best,
    null,
  );
}

export function createTakeover(parts: TakeoverParts): Takeover {
  const { node, storage, state, locks, clock, peers, directory, transitions, promises, duties, guardMs, log } = parts;

  /** Throws why the volume may not be taken now. */
  function checkGuard(seen: SeenVolume): void {
    const { doc } = seen;
    const known = directory.volume(doc.id);
    const name = quote(doc.name);
    if (seen.session !== null || known === null || known.index !== seen.index || known.freeSinceMs === null)
      throw new FlockError(
        'owner-dead',
        `node ${doc.owner} still holds volume ${name}, or did so a moment ago; try again when "flockctl status" shows it dead`,
      );
    const waitMs = Math.max(known.freeSinceMs + guardMs, promises.givenUntilMs(doc.id)) - clock.bootMs();
    if (waitMs > 0)
      throw new FlockError(
        'owner-dead',
        `node ${doc.owner} may still write to volume ${name} for ${(waitMs / 1000).toFixed(1)} s; try again after that`,
        { waitMs },
      );
  }

  /** Refuses where another node has a better copy, or may have. */
  async function checkBest(seen: SeenVolume, signal: AbortSignal): Promise<void> {
    const mine = positionOf(await storage.snapshots(seen.doc.id));
    for (const other of seen.doc.replicas.filter((name) => name !== node)) {
      const state = await peers
        .call(other, 'list-snapshots', { id: seen.doc.id }, { timeoutMs: 3_000, signal })
        .catch(() => null);
      if (state === null)
        throw new FlockError(
          'no-place',
          `node ${other} has a copy of volume ${quote(seen.doc.name)} too and does not answer, so it may be newer than the one here: bring that node back, or use --force`,
          { node: other },
        );
      const theirs = positionOf(state.snapshots);
      if (theirs === null) continue;
      if (mine === null || theirs.epoch > mine.epoch || (theirs.epoch === mine.epoch && theirs.timeMs > mine.timeMs))
        throw new FlockError(
          'no-place',
          `node ${other} has a newer copy of volume ${quote(seen.doc.name)}: take it there, or use --force`,
          { node: other },
        );
    }
  }

  return {
    take: (name, { force }, signal) =>
      locks.with(name, 'failover', signal, async () => {
        const known = directory.byName(name);
        const seen = known === null ? null : await directory.look(known.doc.id);
        if (seen === null) throw new FlockError('volume-not-found', `there is no volume ${quote(name)}`);
        const { doc } = seen;
        const record = state.byId(doc.id);
        if (doc.owner === node)
          return (
            record ?? Promise.reject(new FlockError('dataset-missing', `volume ${quote(name)} is not in the pool`))
          );
        if (record?.phase.kind !== 'replica' || !doc.replicas.includes(node))
          throw new FlockError(
            'no-place',
            `this node has no copy of volume ${quote(name)}: ${doc.replicas.length === 0 ? 'nobody has' : `nodes with one are ${doc.replicas.join(', ')}`}`,
          );
        // The record is there before the first stream has arrived.
        if (!(await storage.exists(doc.id)))
          throw new FlockError('no-place', `the first copy of volume ${quote(name)} has not arrived on this node yet`);
        return await promises.withhold(doc.id, async () => {
          checkGuard(seen);
          if (!force) await checkBest(seen, signal);
          // Some time has passed; a promise may have been given before it was withheld.
          checkGuard(seen);
          const taken = await transitions.take(seen);
          log.warn(
            { event: 'takeover.done', volume: name, dataset: doc.id, from: doc.owner, epoch: taken.epoch },
            'volume taken over',
          );
          return await duties.promote(record, { ...seen, doc: taken });
        });
      }),
  };
}
