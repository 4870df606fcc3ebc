import type { Logger } from 'pino';
import { FlockError, hasCode, unreachable } from '../../controller/model/errors.ts';
import type { FailoverDecision, FailoverInput } from '../../controller/model/failover.ts';
import { type DatasetId, type NodeName, quote, type VolumeName } from '../../controller/model/names.ts';
import { formatDuration } from '../../controller/model/quantity.ts';
import { lastReached } from '../../controller/model/replication.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { Locks } from '../locks.ts';
import type { State } from '../state.ts';
import type { Storage } from '../storage/storage.ts';
import type { Answered, Candidates } from './candidates.ts';
import type { Copies } from './copies.ts';
import type { Directory, SeenVolume } from './directory.ts';
import type { Duties } from './duties.ts';
import type { Clock, Tell } from './ports.ts';
import type { Promises } from './promises.ts';
import type { Retreat } from './retreat.ts';
import type { Transitions } from './transitions.ts';

/** How a copy becomes the volume when its owner is gone: on a person's word, or by itself. */
export type Takeover = {
  /** Throws `owner-dead` with what is still to be waited for, `not-owner` if somebody was faster, `no-place` if this node may not. */
  take(name: VolumeName, options: { readonly force: boolean }, signal: AbortSignal): Promise<VolumeRecord>;
  /** Takes it if that is to happen by itself. Answers what was decided; `take`: it is done. Throws like `take`. */
  consider(seen: SeenVolume, signal: AbortSignal): Promise<FailoverDecision>;
};

export type TakeoverParts = {
  readonly node: NodeName;
  readonly storage: Storage;
  readonly state: State;
  readonly locks: Locks;
  readonly copies: Pick<Copies, 'settle' | 'finish'>;
  readonly clock: Clock;
  readonly directory: Directory;
  readonly transitions: Transitions;
  readonly candidates: Candidates;
  readonly promises: Promises;
  readonly duties: Duties;
  readonly retreat: Pick<Retreat, 'fault'>;
  readonly tell: Tell;
  readonly log: Logger;
};

type Why = { readonly cause: FailoverInput['cause']; readonly force: boolean };
type Attempt =
  | { readonly kind: 'done'; readonly record: VolumeRecord; readonly decision: FailoverDecision }
  | { readonly kind: 'not'; readonly doc: SeenVolume['doc']; readonly decision: FailoverDecision };

export function createTakeover(parts: TakeoverParts): Takeover {
  const {
    node,
    storage,
    state,
    locks,
    copies,
    clock,
    directory,
    transitions,
    candidates,
    promises,
    duties,
    retreat,
    tell,
    log,
  } = parts;

  /** Under the lock of the name, with a fresh look. */
  async function attempt(seen: SeenVolume, why: Why, signal: AbortSignal): Promise<Attempt> {
    const { doc } = seen;
    const record = await copyHere(seen, signal);
    let known: Answered = await candidates.ask(doc.id, [node], signal);
    const first = candidates.decide(seen, why, known);
    if (first.kind === 'ask') known = new Map([...known, ...(await candidates.ask(doc.id, first.nodes, signal))]);
    const decide = () => candidates.decide(seen, why, known);
    return await promises.withhold(doc.id, async () => {
      // Some time has passed, and a promise may have been given before it was withheld. What is not taken goes on receiving.
      const decision = decide();
      if (decision.kind !== 'take') return { kind: 'not', doc, decision };
      const done = await copies.settle(doc.id, async () => {
        // Not what was known before: its old owner may just have made it older, and what it began with must be there.
        const reached = lastReached(await storage.snapshots(doc.id));
        const last = decide();
        if (last.kind !== 'take') return { last };
        // It may have failed while many volumes of a dead node were being taken.
        refuseWithoutPool(doc.name);
        // Also so that a node that can note nothing (a full disk) does not become an owner that never has the volume.
        note(doc.id, { taking: true });
        const taken = await transitions.take(seen, reached, why.cause).catch((error: unknown) => {
          if (hasCode(error, 'not-owner')) note(doc.id, {});
          throw error;
        });
        // From here on its old owner is refused, whenever it becomes the volume.
        note(doc.id, {}, taken.epoch);
        return { last, taken };
      });
      if (done.taken === undefined) return { kind: 'not', doc, decision: done.last };
      report(seen, why, known, done.last.lossMs, done.taken.epoch);
      return { kind: 'done', decision: done.last, record: await duties.promote(record, { ...seen, doc: done.taken }) };
    });
  }

  function refuseWithoutPool(name: VolumeName): void {
    const fault = retreat.fault();
    if (fault === null) return;
    throw new FlockError(
      'pool-unusable',
      `volume ${quote(name)} can't be taken over by this node: ${fault}. Take it on another node with a copy`,
    );
  }

  function note(id: DatasetId, taking: { readonly taking?: true }, epoch?: number): void {
    const record = state.byId(id);
    if (record?.phase.kind !== 'replica') return;
    const { taking: _before, ...phase } = record.phase;
    state.commit({ put: [{ ...record, epoch: epoch ?? record.epoch, phase: { ...phase, ...taking } }] });
  }

  /** The record of the copy. Throws `no-place` where there is none that could be taken. */
  async function copyHere({ doc }: SeenVolume, signal: AbortSignal): Promise<VolumeRecord> {
    // In the middle of that the dataset may be missing, and its snapshots be elsewhere.
    await copies.finish(doc.id, signal);
    const record = state.byId(doc.id);
    if (record?.phase.kind !== 'replica' || !doc.replicas.includes(node))
      throw new FlockError(
        'no-place',
        `this node has no copy of volume ${quote(doc.name)}: ${doc.replicas.length === 0 ? 'nobody has' : `nodes with one are ${doc.replicas.join(', ')}`}`,
      );
    // The record is there before the first stream has arrived.
    if (!(await storage.exists(doc.id)))
      throw new FlockError('no-place', `the first copy of volume ${quote(doc.name)} has not arrived on this node yet`);
    return record;
  }

  function report({ doc }: SeenVolume, { cause, force }: Why, known: Answered, lossMs: number | null, epoch: number) {
    const snapshot = known.get(node)?.state.snapshots?.at(-1)?.name ?? 'nothing';
    const loss = lossMs === null ? 'not known' : `at most ${formatDuration(Math.ceil(lossMs / 1000) * 1000)}`;
    const how = cause === 'automatic' ? 'by itself' : force ? 'forced by a person' : 'on a person’s word';
    log.warn(
      { event: 'takeover.done', volume: doc.name, dataset: doc.id, from: doc.owner, epoch, cause, lossMs },
      'volume taken over',
    );
    tell(
      'failover',
      doc.name,
      `${node} took it from ${doc.owner}, ${how}, with ${snapshot} (epoch ${epoch}); writes of the last moments before ${doc.owner} was gone may be missing: ${loss}`,
    );
  }

  return {
    take: (name, { force }, signal) =>
      locks.with(name, 'failover', signal, async () => {
        const known = directory.byName(name);
        const seen = known === null ? null : await directory.look(known.doc.id);
        if (seen === null) throw new FlockError('volume-not-found', `there is no volume ${quote(name)}`);
        const { doc } = seen;
        if (doc.owner === node)
          return (
            state.byId(doc.id) ??
            Promise.reject(new FlockError('dataset-missing', `volume ${quote(name)} is not in the pool`))
          );
        refuseWithoutPool(doc.name);
        const done = await attempt(seen, { cause: 'operator', force }, signal);
        if (done.kind === 'done') return done.record;
        throw refusal(doc.name, done.decision, clock.bootMs());
      }),

    consider: (before, signal) =>
      locks.with(before.doc.name, 'failover', signal, async () => {
        const seen = await directory.look(before.doc.id);
        if (seen === null || seen.index !== before.index)
          return { kind: 'none', rule: 'locked', reason: 'it has changed meanwhile' };
        return (await attempt(seen, { cause: 'automatic', force: false }, signal)).decision;
      }),
  };
}

/** Why a person's takeover was not done, with the way out. */
function refusal(name: VolumeName, decision: FailoverDecision, nowMs: number): FlockError {
  const volume = `volume ${quote(name)} can't be taken over`;
  switch (decision.kind) {
    case 'none':
      return new FlockError(
        'owner-dead',
        `${volume}: ${decision.reason}; try again when "flockctl status" shows it dead`,
      );
    case 'refuse':
      return new FlockError('no-place', `${volume}: ${decision.reason}; use --force`);
    case 'wait': {
      const waitMs = decision.untilMs === null ? null : Math.max(0, decision.untilMs - nowMs);
      const again = waitMs === null ? '' : ` for ${(waitMs / 1000).toFixed(1)} s`;
      if (decision.rule === 'guard' || decision.rule === 'promise')
        return new FlockError('owner-dead', `${volume}: ${decision.reason}${again}; try again after that`, { waitMs });
      const way =
        decision.rule === 'newer'
          ? 'take it there, or use --force'
          : `bring that node back, try again when it was waited for (${again.slice(5)}), or use --force`;
      return new FlockError('no-place', `${volume}: ${decision.reason}: ${way}`, { waitMs, node: decision.node });
    }
    case 'ask':
    case 'take':
      return new FlockError('volume-busy', `${volume} at this moment; try again`);
    default:
      return unreachable(decision);
  }
}
