import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { type Copy, positionOf } from '../../controller/model/copy-order.ts';
import { calmMs, decideFailover, type FailoverDecision, type FailoverInput } from '../../controller/model/failover.ts';
import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { Directory, SeenVolume } from './directory.ts';
import type { Clock, CopyState, Peers } from './ports.ts';
import type { Promises } from './promises.ts';

/** What this node knows of the copies of a volume without an owner, and what it may do by that. */
export type Candidates = {
  /** What each of the nodes has; null: it does not answer. */
  ask(id: DatasetId, nodes: readonly NodeName[], signal: AbortSignal): Promise<Answered>;
  /** By what is known in this moment, without asking. `as`: for another node, as far as this one can tell. */
  decide(
    seen: SeenVolume,
    why: { readonly cause: FailoverInput['cause']; readonly force: boolean },
    known: Answered,
    as?: NodeName,
  ): FailoverDecision;
};

export type Answered = ReadonlyMap<NodeName, (Copy & { readonly state: CopyState }) | null>;

export type CandidateParts = {
  readonly node: NodeName;
  readonly clock: Clock;
  readonly peers: Peers;
  readonly directory: Directory;
  readonly promises: Pick<Promises, 'givenUntilMs'>;
  /** What this node itself has. */
  readonly own: (id: DatasetId) => Promise<CopyState>;
  readonly guardMs: number;
};

const askMs = 3_000;
/** Of two wall clocks; what comes from farther in the future says nothing. */
const skewMsMax = 5_000;

export function createCandidates(parts: CandidateParts): Candidates {
  const { node, clock, peers, directory, promises, own, guardMs } = parts;

  function copyOf(state: CopyState): Copy {
    const position = positionOf(state.snapshots ?? []);
    const now = clock.bootMs();
    // What the snapshot's name says is of a wall clock, but all there is where the owner did not say more.
    const byNameMs = position === null ? Number.NEGATIVE_INFINITY : clock.nowMs() - position.timeMs;
    const ageMs = state.asOfAgeMs ?? (byNameMs < -skewMsMax ? null : Math.max(0, byNameMs));
    return { snapshots: state.snapshots, asOfMs: ageMs === null ? null : now - ageMs };
  }

  return {
    async ask(id, nodes, signal) {
      const answers = await Promise.all(
        nodes.map(async (name) => {
          const asked =
            name === node
              ? own(id)
              : peers.call(name, 'list-snapshots', { id }, { timeoutMs: askMs, signal }).catch(() => null);
          const state = await asked;
          return [name, state === null ? null : { ...copyOf(state), state }] as const;
        }),
      );
      return new Map(answers);
    },

    decide({ doc, session, index }, { cause, force }, known, as = node) {
      const present = directory.volume(doc.id);
      const isAsSeen = session === null && present !== null && present.index === index;
      const others = new Map([...known].map(([name, answer]) => [name, answer ?? ('silent' as const)]));
      return decideFailover({
        cause,
        force,
        me: as,
        doc,
        guardMs,
        nowMs: clock.bootMs(),
        freeSinceMs: isAsSeen ? present.freeSinceMs : null,
        promisedUntilMs: promises.givenUntilMs(doc.id),
        calmUntilMs: calmUntilMs(doc),
        nodes: [...directory.nodes()].map((one) => ({
          name: one.doc.name,
          deadSinceMs: one.deadSinceMs,
          isPoolLost: one.doc.poolLost === true,
        })),
        mine: known.get(as) ?? { snapshots: null, asOfMs: null },
        others,
      });
    },
  };

  /** By the wall clock of who took it, and this one's: where they are far apart nothing is to be waited for. */
  function calmUntilMs({ failedOverAtMs }: VolumeDoc): number {
    if (failedOverAtMs === undefined) return Number.NEGATIVE_INFINITY;
    const ageMs = clock.nowMs() - failedOverAtMs;
    return Math.abs(ageMs) < calmMs ? clock.bootMs() + calmMs - ageMs : Number.NEGATIVE_INFINITY;
  }
}
