import type { Logger } from 'pino';
import { hasCode, messageOf } from '../../controller/model/errors.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import type { Storage } from '../storage/storage.ts';
import { type Bring, createBring } from './bringing.ts';
import type { Clock, Peers } from './ports.ts';
import type { Target, Work } from './replication-work.ts';
import type { Replicated } from './replicator.ts';

/** All that is sent to copies begins here: one thing at a time to each of them, and so much at once. */
export type Sending = {
  /** Brings the copy up to the newest snapshot, unless something is being sent to it; a failure is noted and tried again later. */
  start(volume: Replicated, work: Work, target: Target): void;
  /** Rejects with what it fails with. Nothing may be being sent to the copy. */
  send: (...args: Parameters<Bring>) => Promise<void>;
  /** Notes a failure, and when to try again. */
  failed(work: Work, target: Target, error: unknown): void;
};

export type SendingParts = {
  readonly storage: Storage;
  readonly clock: Clock;
  readonly peers: Peers;
  /** A copy knows of a newer owner: look at the store. */
  readonly onStale: (id: DatasetId) => void;
  /** Of what `start` began. */
  readonly onEnd: () => void;
  readonly log: Logger;
};

const retryMsMin = 500;
const retryMsMax = 30_000;
const transfersMax = 6;

export function createSending(parts: SendingParts): Sending {
  const { clock, onStale, onEnd, log } = parts;
  const bring = createBring(parts);
  let transfers = 0;

  function send(...[volume, work, target, options]: Parameters<Bring>): Promise<void> {
    if (target.sending !== null) throw new Error(`something is being sent to ${target.node}'s copy of ${work.id}`);
    const sending = bring(volume, work, target, options)
      .catch((error: unknown) => {
        // What it has now is to be asked for.
        target.copy = null;
        throw error;
      })
      .finally(() => {
        target.sending = null;
      });
    target.sending = sending.catch(() => undefined);
    return sending;
  }

  function failed(work: Work, target: Target, error: unknown): void {
    if (target.stop.signal.aborted) return;
    target.copy = null;
    target.failures += 1;
    target.retryAtMs = clock.bootMs() + Math.min(retryMsMax, retryMsMin * 2 ** Math.min(10, target.failures - 1));
    const problem = messageOf(error);
    if (problem !== target.problem)
      log.warn(
        { event: 'replication.copy-failed', dataset: work.id, node: target.node, reason: problem },
        'a copy can not be brought up to date',
      );
    target.problem = problem;
    if (hasCode(error, 'epoch-stale')) onStale(work.id);
  }

  return {
    start(volume, work, target) {
      // Somebody who waits for this copy may have been faster, while the snapshot was taken.
      if (transfers >= transfersMax || target.sending !== null) return;
      transfers += 1;
      send(volume, work, target, { until: null, signal: target.stop.signal })
        .catch((error: unknown) => failed(work, target, error))
        .finally(() => {
          transfers -= 1;
          onEnd();
        });
    },
    send,
    failed,
  };
}
