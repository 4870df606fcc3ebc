import type { DockerWatch } from '../docker/watch.ts';
import type { InspectedWorkload } from '../model/inspected.ts';
import { isBeforeStop, type MoveStep, moveKeys, stepOf } from '../model/move.ts';
import type { Revival } from '../model/revival.ts';
import type { WorkloadDoc } from '../model/workload.ts';
import { hasComeUp, newWorkload, refreshed, volumesOf, write } from './documents.ts';
import type { Home } from './home.ts';
import type { LocalContainer } from './local.ts';
import type { Reviver } from './reviver.ts';
import type { Seen, Stored } from './view.ts';
import type { VolumeIds } from './volume-ids.ts';

/** Says in the store what this node's containers are, and whether people want them to run. */
export type Publishing = {
  /** Answers the document that is to be acted upon. */
  publish(local: LocalContainer, stored: Stored<WorkloadDoc>, seen: Seen): Promise<WorkloadDoc>;
  publishNew(local: LocalContainer, id: WorkloadDoc['id'], seen: Seen): Promise<void>;
  /** Of a container that is part of a move. Answers why it is to be started; null: it is not, or not by others than the move. */
  noteInMove(local: LocalContainer, stored: Stored<WorkloadDoc>, move: string): Promise<string | null>;
  /** Containers that are there no more are forgotten. */
  keep(containerIds: ReadonlySet<string>): void;
};

export type PublishingParts = {
  readonly home: Home;
  readonly watch: Pick<DockerWatch<InspectedWorkload>, 'lookAt'>;
  readonly reviver: Reviver;
  readonly volumeIds: VolumeIds;
  /** The next look is in so many ms at the latest. */
  readonly within: (ms: number) => void;
  readonly retryMs: number;
};

const againMs = 200;
/** Steps that nobody waits for, so that they may take hours. */
const isLong = (step: MoveStep) => step === 'preparing' || step === 'copying';
const restartingMsMax = 10_000;

export function createPublishing(parts: PublishingParts): Publishing {
  const { home, watch, reviver, volumeIds, within, retryMs } = parts;
  const { node, store, clock, log } = home;
  /** Descriptions by which a container counts as stopped by a person, until they have been read once more. */
  const doubted = new Map<string, InspectedWorkload>();
  const restartingSinceMs = new Map<string, number>();

  async function publish(local: LocalContainer, stored: Stored<WorkloadDoc>, seen: Seen): Promise<WorkloadDoc> {
    const { doc, index } = stored;
    const ids = await volumeIds(local.described.volumes, seen);
    const volumes = volumesOf(local.described, (name) => ids.get(name) ?? null, doc.volumes) ?? doc.volumes;
    const fresh = refreshed(doc, local, volumes);
    const revival = judgeForSure(local, doc);
    const wanted = revival.kind === 'wanted' ? { ...fresh, wanted: revival.wanted } : fresh;
    const next = hasComeUp(local.inspected, wanted) ? { ...wanted, stoppedByFlockAtMs: undefined } : wanted;
    if (revival.kind === 'wanted' && revival.wanted === 'stopped')
      log.info({ event: 'workload.stopped', name: doc.name, reason: revival.why }, 'it stays stopped');
    if (revival.kind === 'wait') within(revival.ms);
    if (next === doc) return doc;
    if (!(await write(store, next, index))) within(retryMs);
    // Whatever follows is decided on what the store has then.
    return doc;
  }

  /** Nothing is taken for stopped by a person on what Docker has said once: it tells nobody of a start that failed. */
  function judgeForSure({ inspected }: LocalContainer, doc: WorkloadDoc): Revival {
    const id: string = inspected.Id;
    const first = reviver.judge(inspected, doc);
    if (inspected.State.Status === 'restarting') lookOften(id);
    else restartingSinceMs.delete(id);
    const isStopped = first.kind === 'wanted' && first.wanted === 'stopped';
    const before = doubted.get(id);
    doubted.delete(id);
    // Another object: it was read since.
    if (!isStopped || (before !== undefined && before !== inspected)) return first;
    doubted.set(id, inspected);
    watch.lookAt(id);
    return { kind: 'wait', ms: againMs };
  }

  /** A restart by Docker that fails is told to nobody either; a container that crashes for days is not looked at each second. */
  function lookOften(id: string): void {
    const sinceMs = restartingSinceMs.get(id) ?? clock.bootMs();
    restartingSinceMs.set(id, sinceMs);
    if (clock.bootMs() - sinceMs > restartingMsMax) return;
    watch.lookAt(id);
    within(retryMs);
  }

  async function publishNew(local: LocalContainer, id: WorkloadDoc['id'], seen: Seen): Promise<void> {
    const ids = await volumeIds(local.described.volumes, seen);
    const volumes = volumesOf(local.described, (name) => ids.get(name) ?? null, []);
    // Without its volumes it could be made on any node.
    if (volumes === null) return within(retryMs);
    await write(store, newWorkload(id, local, volumes, node), null);
  }

  /** While its volumes are copied, which may take long, people may stop and start it, and it may crash; from then on the move looks after it. */
  async function noteInMove(
    local: LocalContainer,
    { doc, index }: Stored<WorkloadDoc>,
    move: string,
  ): Promise<string | null> {
    const revival = judgeForSure(local, doc);
    if (revival.kind === 'wait') within(revival.ms);
    if (revival.kind !== 'wanted' && revival.kind !== 'start') return null;
    // A fresh look after the event: what had happened then was not the move's doing.
    const found = await store.get(`${moveKeys.moves}/${move}`, { fresh: true });
    const step = found === null ? null : stepOf(found.value);
    if (step === null || !isBeforeStop(step)) return null;
    if (revival.kind === 'start') return isLong(step) ? revival.why : null;
    log.info(
      { event: `workload.${revival.wanted}`, name: doc.name, move, reason: revival.why },
      'so it is after the move',
    );
    if (!(await write(store, { ...doc, wanted: revival.wanted }, index))) within(retryMs);
    return null;
  }

  return {
    publish,
    publishNew,
    noteInMove,
    keep(ids) {
      for (const id of doubted.keys()) if (!ids.has(id)) doubted.delete(id);
      for (const id of restartingSinceMs.keys()) if (!ids.has(id)) restartingSinceMs.delete(id);
    },
  };
}
