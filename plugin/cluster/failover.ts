import type { Logger } from 'pino';
import { messageOf } from '../../controller/model/errors.ts';
import type { FailoverDecision } from '../../controller/model/failover.ts';
import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import { snapshotName } from '../../controller/model/replication.ts';
import type { State } from '../state.ts';
import type { Candidates } from './candidates.ts';
import type { Directory, SeenVolume } from './directory.ts';
import { createDoubts } from './doubts.ts';
import { eachOf } from './each-of.ts';
import type { Lease } from './lease.ts';
import type { Clock, Tell } from './ports.ts';
import type { Promises } from './promises.ts';
import type { Retreat } from './retreat.ts';
import type { Takeover } from './takeover.ts';

/**
 * Volumes whose owner is dead become this node's by themselves where it has the best copy: looked at whenever something has changed, and
 * each second while there is such a volume. The pure `decideFailover` says what is to be done, `takeover.ts` does it.
 */
export type Failover = {
  wake(): void;
  run(signal: AbortSignal): Promise<void>;
};

export type FailoverParts = {
  readonly node: NodeName;
  readonly clock: Clock;
  readonly state: State;
  readonly lease: Lease;
  readonly directory: Directory;
  readonly candidates: Candidates;
  readonly takeover: Takeover;
  readonly promises: Promises;
  readonly retreat: Pick<Retreat, 'fault'>;
  readonly guardMs: number;
  readonly tell: Tell;
  readonly log: Logger;
};

/** Volumes of a dead host that are taken at a time. */
const workersMax = 8;
const periodMs = 1_000;
/** What comes together is looked at together. */
const pauseMs = 50;
/** Nothing is to be done; a wake ends it. */
const idleMs = 60_000;
const considerMs = 30_000;
const restMs = { wait: 2_000, refuse: 10_000 } as const;

export function createFailover(parts: FailoverParts): Failover {
  const { node, clock, state, lease, directory, candidates, takeover, retreat, tell, log } = parts;
  /** What was said of each volume. */
  const told = new Map<DatasetId, Set<string>>();
  /** What others were asked about is asked again after a while, or when the volume has changed. */
  const resting = new Map<DatasetId, { readonly index: string; readonly untilMs: number }>();
  const doubts = createDoubts(parts);
  let wakeUp: () => void = () => undefined;
  let isDue = true;

  function isOrphan({ doc, session, index }: SeenVolume): boolean {
    if (session !== null || index === '' || doc.trashed !== null) return false;
    return doc.owner !== node && doc.replicas.includes(node) && state.byId(doc.id)?.phase.kind === 'replica';
  }

  /** Answers when to look again. */
  async function look(signal: AbortSignal): Promise<number> {
    const orphans = [...directory.volumes()].filter(isOrphan);
    const ids = new Set(orphans.map(({ doc }) => doc.id));
    for (const id of [...told.keys(), ...resting.keys()])
      if (!ids.has(id)) {
        told.delete(id);
        resting.delete(id);
      }
    let nextMs = clock.bootMs() + (orphans.length === 0 ? idleMs : periodMs);
    const due = orphans.filter((seen) => {
      const rest = resting.get(seen.doc.id);
      if (rest !== undefined && rest.index === seen.index && rest.untilMs > clock.bootMs()) return false;
      // As if the copy here were the only one and good: what stands against that stands against everything.
      const decision = candidates.decide(seen, automatic, new Map([[node, good]]));
      if (decision.kind === 'wait' && decision.untilMs !== null) nextMs = Math.min(nextMs, decision.untilMs);
      if (decision.kind === 'refuse' && decision.rule === 'brake') note(seen, decision);
      if (decision.kind === 'wait' && decision.rule === 'promise') void doubts.look(seen, signal);
      const isOpen = decision.kind === 'ask' || decision.kind === 'take';
      return isOpen || (decision.kind === 'refuse' && decision.rule !== 'brake');
    });
    await eachOf(due, workersMax, async (seen) => {
      const decision = await consider(seen, signal);
      if (decision === null) return;
      if (decision.kind === 'wait' && decision.untilMs !== null) nextMs = Math.min(nextMs, decision.untilMs);
      else if (decision.kind === 'wait' || decision.kind === 'refuse')
        resting.set(seen.doc.id, { index: seen.index, untilMs: clock.bootMs() + restMs[decision.kind] });
      note(seen, decision);
    });
    return nextMs;
  }

  async function consider(seen: SeenVolume, signal: AbortSignal): Promise<FailoverDecision | null> {
    const limit = new AbortController();
    const over = new AbortController();
    void clock
      .sleep(considerMs, AbortSignal.any([signal, over.signal]))
      .then(() => limit.abort(new Error(`not done within ${considerMs / 1000} s`)));
    try {
      return await takeover.consider(seen, AbortSignal.any([signal, limit.signal]));
    } catch (error) {
      log.info(
        { event: 'failover.postponed', volume: seen.doc.name, dataset: seen.doc.id, reason: messageOf(error) },
        'will be tried again',
      );
      return null;
    } finally {
      over.abort();
    }
  }

  /** Once for each reason. */
  function note({ doc }: SeenVolume, decision: FailoverDecision): void {
    if (decision.kind !== 'refuse' && decision.kind !== 'wait') return;
    const key = `${doc.epoch} ${decision.kind} ${decision.rule}`;
    const said = told.get(doc.id) ?? new Set();
    if (said.has(key)) return;
    told.set(doc.id, said.add(key));
    const { kind, rule, reason } = decision;
    log.info({ event: `failover.${kind}`, volume: doc.name, dataset: doc.id, rule, reason }, 'not taken over');
    if (decision.kind === 'refuse' && decision.isFirst)
      tell('failover-refused', doc.name, `${stateOf(doc.owner)}, and ${node} does not take it: ${reason}`);
  }

  function stateOf(owner: NodeName): string {
    return directory.node(owner)?.alive == null ? `${owner} is dead` : `the pool of ${owner} has failed`;
  }

  return {
    wake() {
      isDue = true;
      wakeUp();
    },
    async run(signal) {
      while (!signal.aborted) {
        isDue = false;
        const isReady = directory.complete() && lease.session() !== null && retreat.fault() === null;
        const nextMs = isReady ? await look(signal) : clock.bootMs() + periodMs;
        if (!isDue) {
          const woken = new AbortController();
          wakeUp = () => woken.abort();
          await clock.sleep(Math.max(pauseMs, nextMs - clock.bootMs()), AbortSignal.any([signal, woken.signal]));
        }
        await clock.sleep(pauseMs, signal);
      }
    },
  };
}

const automatic = { cause: 'automatic', force: false } as const;
const good = {
  snapshots: [{ name: snapshotName(1, 0), identity: '' }],
  asOfMs: null,
  state: { epoch: 0, snapshots: [] },
};
