import { FlockError, hasCode, messageOf } from '../model/errors.ts';
import type { MoveDoc, MoveProgress } from '../model/move.ts';
import { formatSize } from '../model/quantity.ts';
import type { MoveTools } from './ports.ts';

/**
 * What is sent of the volumes while they are used: rounds, until one is so short, or sends so little, that the last one, in the pause, will,
 * too. Where many services move at once a round takes its time whatever it sends, and another one only takes more from the rest.
 */

const shortRoundMs = 300;
const smallRoundBytes = 1024 * 1024;
const roundsWithoutGainMax = 5;
/** A round that is not shorter than this share of the best one is no gain. */
const gainShare = 0.8;
const stuckMsMax = 150_000;
const againMs = 500;
const tellMs = 1_000;
/** The rate is that of so long a time. */
const rateMs = 5_000;

type Sent = { readonly sentBytes: number; readonly totalBytes: number | null };

/** What is copied, and where to. */
export type Copied = {
  readonly volumes: readonly { readonly name: string }[];
  readonly to: MoveDoc['to'];
};

export async function copyAll(
  tools: MoveTools,
  doc: Copied,
  tell: (progress: MoveProgress) => Promise<void>,
  signal: AbortSignal,
): Promise<{ readonly note: string }> {
  if (doc.volumes.length === 0) return { note: 'no volumes' };
  const watch = watchProgress(tools, tell);
  let bestMs = Number.POSITIVE_INFINITY;
  let rounds = 0;
  let withoutGain = 0;
  for (;;) {
    const times = await Promise.all(doc.volumes.map(({ name }) => round(tools, doc, name, watch.take(name), signal)));
    const sentBytes = watch.endRound();
    rounds += 1;
    const ms = Math.max(...times);
    withoutGain = ms < gainShare * bestMs ? 0 : withoutGain + 1;
    bestMs = Math.min(bestMs, ms);
    if (ms <= shortRoundMs || sentBytes <= smallRoundBytes || withoutGain >= roundsWithoutGainMax) break;
  }
  await watch.end();
  const text = `${formatSize(watch.sentBytes())} in ${rounds} ${rounds === 1 ? 'round' : 'rounds'}`;
  return { note: text };
}

/** One volume's round: how long it took. Whatever may pass is waited for, until nothing has gone on for too long. */
async function round(
  { plugin, clock }: MoveTools,
  { to }: Copied,
  volume: string,
  took: (sent: Sent) => boolean,
  signal: AbortSignal,
): Promise<number> {
  let movedAtMs = clock.bootMs();
  let problem = 'nothing was sent';
  for (;;) {
    signal.throwIfAborted();
    try {
      const { state, roundMs, ...sent } = await plugin.copy(volume, to, signal);
      if (took(sent)) movedAtMs = clock.bootMs();
      if (state === 'done') return roundMs ?? 0;
    } catch (error) {
      signal.throwIfAborted();
      if (!mayPass(error)) throw error;
      // Other moves wait for their turn with copies of their own.
      if (hasCode(error, 'too-many-requests')) movedAtMs = clock.bootMs();
      problem = messageOf(error);
      await clock.sleep(againMs, signal);
    }
    if (clock.bootMs() - movedAtMs > stuckMsMax)
      throw new FlockError(
        'deadline-exceeded',
        `the copy of volume ${volume} on ${to} has not got on for ${stuckMsMax / 1000} s: ${problem}`,
      );
  }
}

function mayPass(error: unknown): boolean {
  return hasCode(
    error,
    ...(['store-unavailable', 'node-unreachable', 'not-ready', 'volume-busy'] as const),
    ...(['deadline-exceeded', 'too-many-requests', 'handoff-running', 'stream-invalid'] as const),
    // The copy has changed since this was planned.
    ...(['no-common-snapshot', 'snapshot-not-found'] as const),
  );
}

function watchProgress({ clock }: MoveTools, tell: (progress: MoveProgress) => Promise<void>) {
  /** Of the rounds that are over, and of the one that runs, by volume. */
  let beforeBytes = 0;
  const current = new Map<string, Sent>();
  let seen: readonly { readonly atMs: number; readonly bytes: number }[] = [];
  let toldAtMs = Number.NEGATIVE_INFINITY;
  let telling: Promise<void> = Promise.resolve();

  const sentBytes = () => [...current.values()].reduce((sum, one) => sum + one.sentBytes, beforeBytes);

  function progress(): MoveProgress {
    const nowMs = clock.bootMs();
    const bytes = sentBytes();
    seen = [...seen.filter(({ atMs }) => atMs > nowMs - rateMs), { atMs: nowMs, bytes }];
    const [first] = seen;
    const ms = first === undefined ? 0 : nowMs - first.atMs;
    const totals = [...current.values()].map(({ totalBytes }) => totalBytes);
    return {
      sentBytes: bytes,
      totalBytes: totals.reduce<number | null>(
        (sum, total) => (sum === null || total === null ? null : sum + total),
        beforeBytes,
      ),
      bytesPerSecond: first === undefined || ms <= 0 ? 0 : Math.max(0, Math.round((1000 * (bytes - first.bytes)) / ms)),
    };
  }

  function tellSometimes(): void {
    if (clock.bootMs() - toldAtMs < tellMs) return;
    toldAtMs = clock.bootMs();
    const now = progress();
    telling = telling.then(() => tell(now));
  }

  return {
    sentBytes,
    /** Answers whether the volume has got on. */
    take: (volume: string) => (sent: Sent) => {
      const isNew = sent.sentBytes !== current.get(volume)?.sentBytes;
      current.set(volume, sent);
      tellSometimes();
      return isNew;
    },
    /** Answers what was sent in it. */
    endRound(): number {
      const roundBytes = sentBytes() - beforeBytes;
      beforeBytes += roundBytes;
      current.clear();
      return roundBytes;
    },
    /** What was sent in all is told, too. */
    async end() {
      await telling;
      await tell({ ...progress(), totalBytes: sentBytes() });
    },
  };
}
