import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { State } from '../state.ts';
import type { AsOfAnswer, AsOfNews, Clock, CopyState, Peers } from './ports.ts';
import type { Replicated, Replicator } from './replicator.ts';

/**
 * Up to when a copy has everything, for volumes that limit what a takeover may lose: of an idle volume the last snapshot is old, though
 * nothing is missing in the copy. The owner says it again and again while it lives and the copy is in sync.
 *
 * It says it on the clock of the node with the copy, so that neither another wall clock nor a message that took long makes a copy look
 * fresher than it is: each answer has that node's time, and what the owner has found after it came is as of then or later.
 */
export type AsOf = {
  /** The other side: what an owner says. */
  hear(peer: NodeName, run: string | null, news: readonly AsOfNews[]): AsOfAnswer;
  /** Boot time as of which the copy here, which has these snapshots, has everything; null: nobody said so. */
  of(id: DatasetId, snapshots: CopyState['snapshots']): number | null;
  run(signal: AbortSignal): Promise<void>;
};

export type AsOfParts = {
  readonly clock: Clock;
  readonly peers: Peers;
  readonly state: State;
  readonly volumes: () => readonly Replicated[];
  readonly replicator: Pick<Replicator, 'complete'>;
};

const periodMs = 1_000;
const callMs = 2_000;
/** Of one message. */
const newsMax = 2_000;
/** What was seen of a copy that takes long may be this many answers old. */
const heardMax = 16;

/** What a node said of its clock, and when that was here. */
type Heard = AsOfAnswer & { readonly gotAtMs: number };

export function createAsOf({ clock, peers, state, volumes, replicator }: AsOfParts): AsOf {
  /** Tells this process's times from those of others, and of another boot. */
  const ownRun = clock.randomHex(8);
  const told = new Map<DatasetId, { readonly identity: string; readonly epoch: number; readonly atMs: number }>();
  /** The newest first, all of one run. */
  const clocks = new Map<NodeName, readonly Heard[]>();
  const busy = new Set<NodeName>();

  async function tell(node: NodeName, ids: readonly Replicated[], signal: AbortSignal): Promise<void> {
    const heards = clocks.get(node) ?? [];
    const news = ids.flatMap(({ doc, isMounted }): AsOfNews[] => {
      const copy = replicator.complete(doc.id, node, isMounted);
      // The youngest that came before the owner saw that nothing was missing.
      const heard = heards.find(({ gotAtMs }) => copy !== null && gotAtMs <= copy.atMs);
      if (heard === undefined || copy === null) return [];
      const asOfMs = heard.bootMs + (copy.atMs - heard.gotAtMs) * slowest;
      return [{ id: doc.id, epoch: doc.epoch, identity: copy.identity, asOfMs }];
    });
    for (let from = 0; from === 0 || from < news.length; from += newsMax) {
      const ask = { run: heards[0]?.run ?? null, news: news.slice(from, from + newsMax) };
      const answer = await peers.call(node, 'as-of', ask, { timeoutMs: callMs, signal });
      const same = heards.filter(({ run }) => run === answer.run);
      clocks.set(node, [{ ...answer, gotAtMs: clock.bootMs() }, ...same].slice(0, heardMax));
    }
  }

  return {
    hear(peer, run, news) {
      const now = clock.bootMs();
      for (const { id, epoch, identity, asOfMs } of run === ownRun ? news : []) {
        const record = state.byId(id);
        if (record?.phase.kind !== 'replica' || record.phase.owner !== peer || record.epoch !== epoch) continue;
        const before = told.get(id);
        const atMs = Math.min(now, asOfMs);
        if (before?.identity !== identity || before.atMs < atMs) told.set(id, { identity, epoch, atMs });
      }
      for (const id of told.keys()) if (state.byId(id) === undefined) told.delete(id);
      return { run: ownRun, bootMs: now };
    },
    of(id, snapshots) {
      const known = told.get(id);
      // What came since then is newer; what was gone back behind is not there any more.
      const isThere = known !== undefined && snapshots?.some(({ identity }) => identity === known.identity) === true;
      return isThere && state.byId(id)?.epoch === known.epoch ? known.atMs : null;
    },
    async run(signal) {
      while (!signal.aborted) {
        const limited = volumes().filter(({ doc }) => doc.options.maxLossMs !== null);
        const nodes = new Set(limited.flatMap(({ doc }) => doc.replicas));
        for (const node of nodes) {
          if (busy.has(node)) continue;
          busy.add(node);
          const ids = limited.filter(({ doc }) => doc.replicas.includes(node));
          // Whoever does not answer is told the next time.
          void tell(node, ids, signal)
            .catch(() => undefined)
            .finally(() => busy.delete(node));
        }
        await clock.sleep(periodMs, signal);
      }
    },
  };
}

/** Two clocks may differ by so much in their rates; what was said is never younger than it is. */
const slowest = 0.99;
