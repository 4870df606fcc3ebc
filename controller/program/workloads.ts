import type { DockerWatch } from '../docker/watch.ts';
import { hasCode, messageOf } from '../model/errors.ts';
import { followOf, imageNodesOf, isLeftOver, type Sharers, sharersOf, sharingWith } from '../model/following.ts';
import type { InspectedWorkload } from '../model/inspected.ts';
import { timings } from '../model/timing.ts';
import type { WorkloadDoc } from '../model/workload.ts';
import { createLatch } from '../store/latch.ts';
import { belongingOf, spokenOf } from './documents.ts';
import { createDue } from './due.ts';
import { createDuties } from './duties.ts';
import type { Home, Part } from './home.ts';
import { createJobs, type Jobs } from './jobs.ts';
import { createLocalContainers, type LocalContainer } from './local.ts';
import { createOrder } from './order.ts';
import { createPublishing } from './publishing.ts';
import type { Reviver } from './reviver.ts';
import type { Seen, Stored } from './view.ts';
import type { VolumeIds } from './volume-ids.ts';

/**
 * This node's part in all workloads: it says what its containers are, keeps those running that are to run, makes those that a dead node
 * has left to it, and puts away those that are elsewhere by now. One look after the other, woken by Docker and the store; what takes long
 * is done beside, one thing at a time for each workload.
 */
export type Workloads = Part & { wake(): void };

export type WorkloadsParts = {
  readonly home: Home;
  readonly watch: Pick<DockerWatch<InspectedWorkload>, 'containers' | 'lookAt'>;
  readonly reviver: Reviver;
  readonly volumeIds: VolumeIds;
  readonly times?: Partial<WorkloadTimes>;
};

export type WorkloadTimes = {
  /** Before a look: what comes meanwhile is seen with it. */
  readonly gapMs: number;
  /** Without any reason. */
  readonly tickMs: number;
  /** After what has failed on this host: a name that is taken, an image that is nowhere. */
  readonly againMs: number;
  /** After what has failed at the store or Docker. */
  readonly retryMs: number;
};

export const workloadTimes: WorkloadTimes = { gapMs: 20, tickMs: 10_000, againMs: 30_000, retryMs: 1_000 };
const jobsMax = 16;
/** Beside those: they wait for each other anyhow, and with what they wait for would keep everything else from beginning. */
const imageJobsMax = 1;
/** An image that is here is looked for again after this time: people remove images. One that does not come, then at the latest. */
const imageMs = 600_000;

export function createWorkloads({ home, watch, reviver, volumeIds, ...parts }: WorkloadsParts): Workloads {
  const { node, docker, view, images, events, clock, log } = home;
  const times = { ...workloadTimes, ...parts.times };
  const latch = createLatch();
  const locals = createLocalContainers(docker);
  const duties = createDuties(home, reviver);
  const order = createOrder(node, clock);
  const due = createDue(clock);
  /** What was told of a workload, so that it is told once. */
  const told = new Map<string, string>();
  let nextMs = 0;
  let alarmed = new AbortController();

  /** The next look is in so many ms at the latest. */
  function within(ms: number): void {
    nextMs = Math.min(nextMs, Math.max(1, ms));
  }

  function tellOnce(kind: 'recreated' | 'failover-refused', doc: WorkloadDoc, text: string): void {
    if (told.get(doc.id) === text) return;
    told.set(doc.id, text);
    log.warn({ event: 'workload.waits', name: doc.name, reason: text }, 'not done');
    events.tell(kind, doc.name, text);
  }

  function begin(jobs: Jobs, key: string, work: (signal: AbortSignal) => Promise<void>): void {
    if (due.waitMs(key) > 0) within(due.waitMs(key));
    else jobs.begin(key, work);
  }

  const publishing = createPublishing({ home, watch, reviver, volumeIds, within, retryMs: times.retryMs });

  /** What a dead node has left may be made here again, by flock or by people. */
  function isHomeAlive(id: WorkloadDoc['id'], { workloads, alive }: Seen): boolean {
    const doc = workloads.get(id)?.doc;
    return doc !== undefined && alive.has(doc.node);
  }

  /** Containers of this node, and workloads that are to have one here. */
  async function lookHere(seen: Seen, jobs: Jobs): Promise<void> {
    const containers = watch.containers() ?? [];
    const all = await locals.describe(
      containers,
      [...seen.workloads.values()].map(({ doc }) => doc),
    );
    const here = new Set<string>(containers.map(({ Id }) => Id));
    reviver.keep(here);
    publishing.keep(here);
    order.keep(here, seen);
    const spoken = spokenOf(seen.workloads, node);
    // A node that was taken out of its cluster says nothing more there, or the others would drop it again and again.
    const isMember = home.clusterId === null || seen.nodes.has(node);
    for (const local of all) {
      const belonging = belongingOf(local.inspected, seen.workloads, spoken, node);
      if (belonging.kind === 'new' && isMember) await publishing.publishNew(local, belonging.id, seen);
      // Never beside what would make, and might use, the same container.
      if (belonging.kind === 'left' && home.clusterId !== null && isHomeAlive(belonging.id, seen))
        begin(jobs, `make ${belonging.id}`, () => duties.clear(local.inspected.Id, belonging.id));
      if (belonging.kind !== 'workload') continue;
      // What a move does with it is the move's business.
      const { doc: before } = belonging.stored;
      if (before.move !== null) {
        const why = await publishing.noteInMove(local, belonging.stored, before.move);
        if (why !== null) startWhenDue(local, before, why, all, seen, jobs);
        continue;
      }
      const doc = await publishing.publish(local, belonging.stored, seen);
      const revival = reviver.judge(local.inspected, doc);
      if (revival.kind === 'start') startWhenDue(local, doc, revival.why, all, seen, jobs);
    }
    for (const { doc } of seen.workloads.values()) {
      if (doc.node !== node || doc.move !== null) continue;
      if (doc.containerId === null) makeHere(doc, seen, jobs);
      else if (!here.has(doc.containerId)) begin(jobs, `forget ${doc.id}`, () => duties.forget(doc));
    }
  }

  function startWhenDue(
    { inspected }: LocalContainer,
    doc: WorkloadDoc,
    why: string,
    all: readonly LocalContainer[],
    seen: Seen,
    jobs: Jobs,
  ): void {
    const waitMs = reviver.waitMs(inspected.Id);
    if (waitMs > 0) {
      within(waitMs);
      return;
    }
    if (order.isStartBlocked(inspected, doc, all, seen)) {
      within(times.retryMs);
      return;
    }
    jobs.begin(`start ${doc.id}`, () => duties.start(doc, why));
  }

  function makeHere(doc: WorkloadDoc, seen: Seen, jobs: Jobs): void {
    if (doc.wanted !== 'running') return;
    const lacking = order.lackingFor(doc, seen);
    if (lacking.names.length > 0) {
      const names = lacking.names.join(', ');
      if (lacking.isForLong)
        tellOnce(
          'recreated',
          doc,
          `it can't be made on ${node} yet: it is linked (--link) with ${names}, not there so far`,
        );
      return;
    }
    const holders = [...doc.former.map((former) => former.node).toReversed(), ...seen.nodes.keys()];
    const from = [...new Set(holders)].filter((other) => other !== node && seen.alive.has(other));
    begin(jobs, `make ${doc.id}`, async (signal) => {
      try {
        await duties.make(doc, from, signal);
        told.delete(doc.id);
      } catch (error) {
        if (!signal.aborted) tellOnce('recreated', doc, `it can't be made on ${node} yet: ${messageOf(error)}`);
        throw error;
      }
    });
  }

  function lookElsewhere(seen: Seen, jobs: Jobs, imageJobs: Jobs): void {
    const docs = [...seen.workloads.values()].map(({ doc }) => doc);
    const here = new Set<string>(watch.containers()?.map(({ Id }) => Id));
    const workloadsOn = Map.groupBy(docs, (doc) => doc.node);
    const sharers = sharersOf(docs);
    const facts = {
      ...seen,
      workloadsOn,
      sharers,
      me: node,
      nowMs: clock.bootMs(),
      guardMs: timings[seen.profile].guardMs,
    };
    for (const doc of docs) {
      const former = doc.move === null ? doc.former.filter((one) => one.node === node) : [];
      if (
        former.some(({ why, containerId }) => why === 'left' && here.has(containerId)) &&
        mayReturn(doc, seen, sharers)
      ) {
        begin(jobs, `claim ${doc.id}`, () =>
          duties.claim(doc, `it was not made on ${doc.node} yet`, togetherWith(doc, seen, sharers)),
        );
        continue;
      }
      for (const one of former) begin(jobs, `put away ${one.containerId}`, () => duties.putAway(doc, one));
      if (doc.node === node) continue;
      if (home.clusterId === null) {
        begin(jobs, `adopt ${doc.id}`, () => duties.adopt(doc));
        continue;
      }
      const follow = followOf(doc, facts);
      if (follow.kind === 'wait') within(follow.ms);
      else if (follow.kind === 'refused') tellOnce('failover-refused', doc, follow.why);
      else if (follow.kind === 'claim' && former.every((one) => !jobs.isRunning(`put away ${one.containerId}`)))
        begin(jobs, `claim ${doc.id}`, () => duties.claim(doc, follow.why, togetherWith(doc, seen, sharers)));
      else if (isLeftOver(doc, facts)) begin(jobs, `drop ${doc.id}`, () => duties.drop(doc));
      else if (seen.alive.has(doc.node) && imageNodesOf(doc, facts).includes(node)) bringImage(doc, imageJobs);
    }
  }

  function togetherWith(doc: WorkloadDoc, { workloads }: Seen, sharers: Sharers): readonly Stored<WorkloadDoc>[] {
    return sharingWith(doc, sharers).flatMap(({ id }) => workloads.get(id) ?? []);
  }

  /**
   * Without volumes it is as good here as elsewhere, and the other node may be unable to make it. Not without what it is linked with: that
   * stays where it was made, or its volumes are.
   */
  function mayReturn(doc: WorkloadDoc, { nodes }: Seen, sharers: Sharers): boolean {
    const { node: current, volumes, containerId, wanted } = doc;
    const isLeaving = nodes.get(node)?.draining ?? true;
    if (current === node || volumes.length > 0 || containerId !== null || wanted !== 'running' || isLeaving)
      return false;
    return sharingWith(doc, sharers).every(
      (other) => other.node === node || (other.containerId === null && other.volumes.length === 0),
    );
  }

  /** Ahead of time: once its node is dead, nobody else may have it. */
  function bringImage(doc: WorkloadDoc, jobs: Jobs): void {
    const key = `image ${doc.spec.imageId}`;
    begin(jobs, key, async (signal) => {
      await images.ensure(doc, [doc.node], signal);
      due.done(key, imageMs);
    });
  }

  /** One look at everything. */
  async function look(jobs: Jobs, imageJobs: Jobs): Promise<void> {
    const seen = view.seen();
    if (seen === null || watch.containers() === null) return;
    // Nothing is decided on what the store said once.
    if (view.fault() !== null) return within(times.retryMs);
    await lookHere(seen, jobs);
    lookElsewhere(seen, jobs, imageJobs);
    for (const id of told.keys()) if (!seen.workloads.has(id as WorkloadDoc['id'])) told.delete(id);
  }

  return {
    wake: () => latch.open(),
    async run(signal) {
      const onEnd = (key: string, error: unknown) => {
        // These may find that nothing is to be done, as what can't be read is there all the same; that stays so.
        const isFutile = key.startsWith('forget ') || key.startsWith('drop ');
        const isImage = key.startsWith('image ');
        const againMs = isImage || key.startsWith('make ') ? times.againMs : times.retryMs;
        // One that is busy with others' images has not failed.
        const againMsMax = isImage && !hasCode(error, 'too-many-requests') ? imageMs : againMs;
        if (error !== null || isFutile) due.failed(key, againMs, againMsMax);
        latch.open();
      };
      const jobs = createJobs({ signal, max: jobsMax, onEnd, log });
      const imageJobs = createJobs({ signal, max: imageJobsMax, onEnd, log });
      const stopListening = view.onChange(latch.open);
      let problem: string | null = null;
      latch.open();
      while (await latch.pass(signal)) {
        await clock.sleep(times.gapMs, signal);
        nextMs = times.tickMs;
        try {
          await look(jobs, imageJobs);
          problem = null;
        } catch (error) {
          if (signal.aborted) break;
          const text = messageOf(error);
          if (text !== problem) log.warn({ event: 'workloads.waiting', reason: text }, 'tried again');
          problem = text;
          nextMs = times.retryMs;
        }
        alarm(nextMs, signal);
      }
      stopListening();
      await Promise.all([jobs.ended(), imageJobs.ended()]);
    },
  };

  /** Opens the latch after the time; a new one takes the place of the one before. */
  function alarm(ms: number, signal: AbortSignal): void {
    alarmed.abort();
    alarmed = new AbortController();
    const mine = alarmed.signal;
    void clock.sleep(ms, AbortSignal.any([signal, mine])).then(() => {
      if (!mine.aborted) latch.open();
    });
  }
}
