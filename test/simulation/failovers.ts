import { decodeVolume, keys, type VolumeDoc } from '../../controller/model/cluster.ts';
import { newestOf } from '../../controller/model/copy-order.ts';
import { calmMs, policyOf } from '../../controller/model/failover.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import type { Operation, SessionId } from '../../controller/store/store.ts';
import { poolLostAfterMs } from '../../plugin/cluster/retreat.ts';
import { commonOf, headOf, type Record } from './content.ts';
import type { Host } from './host.ts';
import type { World } from './world.ts';

/** Volumes that nodes take by themselves: whether they may, and that they do. */
export type Failovers = {
  /** A node is about to ask this of the store. */
  sends(host: Host, operations: readonly Operation[]): void;
  /** These have changed in the store. */
  changed(changed: ReadonlySet<string>): void;
  /** When a volume was taken last; -Infinity: never. */
  takenAtMs(id: DatasetId): number;
};

type Taken = { readonly atMs: number; readonly wallMs: number };

/** Clocks run a little apart, and a look at the content comes a moment before the time that is noted. */
const slackMs = 2_000;
/** Farther apart are wall clocks only after one was set. */
const wallSlackMs = 5_000;

export function createFailovers(world: () => World): Failovers {
  const taken = new Map<DatasetId, Taken>();

  /** The documents before and after, where the operations are those of a node that takes a volume by itself. */
  function takeOf(host: Host, operation: Operation): { readonly before: VolumeDoc; readonly after: VolumeDoc } | null {
    if (operation.kind !== 'lock' || !operation.key.startsWith(`${keys.volumes}/`)) return null;
    const before = world()
      .docs()
      .get(operation.key.slice(keys.volumes.length + 1) as DatasetId)?.doc;
    if (before === undefined || !operation.value.includes('"failedOverAtMs"')) return null;
    const after = decodeVolume(operation.value);
    const isTaken = after.owner === host.name && after.epoch === before.epoch + 1;
    return isTaken && after.failedOverAtMs !== before.failedOverAtMs ? { before, after } : null;
  }

  function check(host: Host, before: VolumeDoc, after: VolumeDoc): void {
    const { id } = before;
    const nodes = [...(host.process()?.agent()?.directory.nodes() ?? [])];
    const dead = nodes.filter(({ alive }) => alive === null).length;
    const { violate } = world().checks;
    if (policyOf(before.options) !== 'auto')
      violate('F1', `${host.name} takes ${id} by itself, which has failover=${before.options.failover}`);
    if (dead > 1 && 3 * dead > nodes.length)
      violate('F2', `${host.name} takes ${id} by itself, though ${dead} of ${nodes.length} nodes look dead`);
    const last = taken.get(id);
    const nowMs = world().scheduler.nowMs();
    // A pool that has failed is no flapping network.
    const isPoolLost = nodes.some(({ doc }) => doc.name === before.owner && doc.poolLost === true);
    if (last !== undefined && after.failedOverAtMs !== undefined && !isPoolLost) {
      const areClocksEqual = Math.abs(after.failedOverAtMs - last.wallMs - (nowMs - last.atMs)) < wallSlackMs;
      if (areClocksEqual && nowMs - last.atMs < calmMs - slackMs)
        violate('F3', `${host.name} takes ${id} by itself, ${(nowMs - last.atMs).toFixed(0)} ms after the last time`);
    }
    checkLoss(host, before);
    checkBest(host, before);
  }

  /** What is missing was written within the limit before the owner was seen gone. */
  function checkLoss(host: Host, { id, owner, options }: VolumeDoc): void {
    const freeSinceMs = host.process()?.agent()?.directory.volume(id)?.freeSinceMs ?? null;
    const walls = world().hosts.map((one) => one.wallMs());
    const areClocksEqual = Math.max(...walls) - Math.min(...walls) < wallSlackMs;
    if (options.maxLossMs === null || freeSinceMs === null || !areClocksEqual) return;
    const heads = [world().host(owner), host].map(({ disk }) => {
      const live = disk.datasets.get(id);
      return live === undefined ? null : headOf(live.tree);
    });
    const common = commonOf(heads);
    let first: Record | null = null;
    for (let at = heads[0] ?? null; at !== null && at !== common; at = at.before) first = at;
    const goneAtMs = world().scheduler.nowMs() - (host.bootMs() - freeSinceMs);
    if (first !== null && first.atMs < goneAtMs - options.maxLossMs - slackMs)
      world().checks.violate(
        'F4',
        `${host.name} takes ${id} without record ${first.number}, written ${(goneAtMs - first.atMs).toFixed(0)} ms before ${owner} was gone; max-loss is ${options.maxLossMs} ms`,
      );
  }

  /** Without faults everybody answers; one that says that its pool has failed is not asked. */
  function checkBest(host: Host, { id, replicas }: VolumeDoc): void {
    if (!world().network.isCalm()) return;
    // Its owner is back, and sends more to others: this one is late, and the store refuses it.
    if (world().docs().get(id)?.session !== null) return;
    const of = (one: Host) => ({
      name: one.name,
      snapshots: one.disk.datasets.get(id)?.snapshots ?? null,
      asOfMs: null,
    });
    const mine = of(host);
    const others = replicas.filter((name) => {
      const seen = host.process()?.agent()?.directory.node(name);
      return name !== host.name && seen?.alive != null && seen.doc.poolLost !== true && world().host(name).isUp();
    });
    const { copies: newest } = newestOf([mine, ...others.map((name) => of(world().host(name)))]);
    if (!newest.includes(mine))
      world().checks.violate('F5', `${host.name} takes ${id}, though ${newest[0]?.name} has a newer copy`);
  }

  return {
    sends(host, operations) {
      for (const operation of operations) {
        const found = takeOf(host, operation);
        if (found !== null) check(host, found.before, found.after);
      }
    },
    changed(changed) {
      for (const key of changed) {
        if (!key.startsWith(`${keys.volumes}/`)) continue;
        const id = key.slice(keys.volumes.length + 1) as DatasetId;
        const wallMs = world().docs().get(id)?.doc.failedOverAtMs;
        if (wallMs !== undefined && taken.get(id)?.wallMs !== wallMs)
          taken.set(id, { atMs: world().scheduler.nowMs(), wallMs });
      }
    },
    takenAtMs: (id) => taken.get(id)?.atMs ?? Number.NEGATIVE_INFINITY,
  };
}

/** Less is refused, for the time in which nobody notices that the owner is dead counts. */
const maxLossMsSure = 12_000;
const sessionMsMax = 4_000;
const lookMs = 250;
/** A new owner has made a snapshot, sent it, and twice told the copies up to when they have everything. */
const settledMs = 3_000;
const usualLagMsMax = 5_000;
/** For turns of equal copies, messages and commands. */
const takeMsMax = 10_000;
/** Until a node is sure that its pool has failed: the time itself and a look more, on a slow clock. */
const retreatMsMax = 1.05 * poolLostAfterMs + 4_500;

/** `lastAtMs`: when it was taken by itself before. */
type Owned = { readonly doc: VolumeDoc; readonly lastAtMs: number };

/** One owner with the same copies. */
const tenureOf = ({ id, epoch, replicas }: VolumeDoc) => `${id} ${epoch} ${replicas.join()}`;

/** When all is well a host loses its power, the store, or its pool: its volumes get other owners by themselves, if they may. `done`: it has its power again. */
export function loseOwner(world: World, done: () => void): void {
  const docs = () => [...world.docs().values()].map(({ doc }) => doc).filter(({ trashed }) => trashed === null);

  function isOwned({ id, owner, epoch }: VolumeDoc): boolean {
    const record = world.host(owner).file.records.get(id);
    return record?.phase.kind === 'ready' && record.epoch === epoch;
  }

  function isReplicated({ id, owner, replicas }: VolumeDoc): boolean {
    const copies = world.host(owner).process()?.agent()?.copies(id) ?? [];
    return replicas.every((name) => {
      const lagMs = copies.find(({ node }) => node === name)?.lagMs ?? null;
      return lagMs !== null && lagMs <= usualLagMsMax;
    });
  }

  // What was made or has changed hands since all was well may have no copy yet, or none that knows how new it is.
  const steady = () =>
    new Set(
      docs()
        .filter((doc) => isOwned(doc) && isReplicated(doc))
        .map(tenureOf),
    );
  const before = steady();
  world.scheduler.after(settledMs, () => {
    const settled = steady();
    loseOwnerOf(world, docs, (doc) => before.has(tenureOf(doc)) && settled.has(tenureOf(doc)) && isOwned(doc), done);
  });
}

function loseOwnerOf(
  world: World,
  docs: () => readonly VolumeDoc[],
  isSettled: (doc: VolumeDoc) => boolean,
  done: () => void,
): void {
  const { scheduler, random, timing, failovers } = world;
  const owners = new Set(docs().map(({ owner }) => owner));
  if (owners.size === 0) {
    done();
    return;
  }
  const host = world.host(random.pick([...owners]));
  const far = random.chance(0.5) ? random.pick(world.hosts) : host;
  const ends = far === host ? [] : [world.network.cut(host.name, far.name), world.network.cut(far.name, host.name)];
  const isHalf = far !== host && random.chance(0.4);
  const isPool = !isHalf && random.chance(0.3);
  const what = isHalf ? 'the store' : isPool ? 'its pool' : 'its power';
  world.trace(() => `LAST ${host.name} loses ${what}, way to ${far.name} cut`);

  scheduler.after(random.between(500, 4_000), () => {
    const offAtMs = scheduler.nowMs();
    const goneMs = isPool ? retreatMsMax : random.between(100, sessionMsMax);
    const untilMs = offAtMs + goneMs + (isHalf ? 3 : 1) * 1.02 * timing.guardMs + takeMsMax;
    const owned = docs()
      .filter((doc) => doc.owner === host.name && doc.replicas.length > 0 && isSettled(doc))
      .map((doc) => ({ doc, lastAtMs: failovers.takenAtMs(doc.id) }));
    if (isHalf) loseStore(host, goneMs);
    else {
      if (isPool) host.disk.fault = random.chance(0.5) ? 'failed' : 'read-only';
      else losePower(host, goneMs);
      for (const end of ends) end();
    }
    look(owned, offAtMs, untilMs);
  });

  function losePower(one: Host, goneMs: number): void {
    const session = one.file.facts.get('session') as SessionId | undefined;
    one.powerOff();
    scheduler.after(goneMs, () => session !== undefined && world.store.endSession(session));
  }

  /** It goes on by promises, unless it does not reach one of the copies. */
  function loseStore(one: Host, goneMs: number): void {
    const session = one.file.facts.get('session') as SessionId | undefined;
    world.store.cut(one.name);
    scheduler.after(goneMs, () => session !== undefined && world.store.endSession(session));
  }

  /** Too soon for another takeover of the same volumes. */
  function loseNext(ids: readonly DatasetId[]): void {
    const next = ids.map((id) => world.docs().get(id)?.doc.owner).find((owner) => owner !== undefined);
    if (next === undefined || !random.chance(0.5)) {
      done();
      return;
    }
    scheduler.after(random.between(2_000, 8_000), () => {
      world.trace(() => `LAST ${next} loses its power, too`);
      losePower(world.host(next), sessionMsMax);
      scheduler.after(sessionMsMax + 1.02 * timing.guardMs + takeMsMax / 2, () => {
        world.host(next).powerOn();
        done();
      });
    });
  }

  function look(owned: readonly Owned[], offAtMs: number, untilMs: number): void {
    scheduler.after(lookMs, () => {
      const taken = owned.filter(({ doc }) => failovers.takenAtMs(doc.id) > offAtMs).map(({ doc }) => doc);
      const [wrong] = taken.filter(isKept);
      if (wrong !== undefined)
        world.checks.violate('F1', `${wrong.id} was taken by itself, options ${JSON.stringify(wrong.options)}`);
      const late = owned.filter((one) => isTakenForSure(one, offAtMs) && !hasOwner(one.doc));
      if (late.length > 0 && scheduler.nowMs() > untilMs)
        world.checks.violate('F6', `${late[0]?.doc.id} has no owner since ${host.name} lost ${what}`);
      if (late.length === 0 && scheduler.nowMs() > untilMs - takeMsMax / 2) {
        if (isHalf) {
          world.store.heal(host.name);
          for (const end of ends) end();
          done();
          return;
        }
        host.disk.fault = null;
        host.powerOn();
        loseNext(taken.map(({ id }) => id));
      } else look(owned, offAtMs, untilMs);
    });
  }

  function hasOwner({ id }: VolumeDoc): boolean {
    const seen = world.docs().get(id);
    const owner = seen === undefined ? undefined : world.host(seen.doc.owner);
    return seen?.session != null && owner !== host && owner?.file.records.get(id)?.phase.kind === 'ready';
  }

  function isTakenForSure({ doc: { options, replicas }, lastAtMs }: Owned, offAtMs: number): boolean {
    if (policyOf(options) !== 'auto' || offAtMs - lastAtMs < 1.1 * calmMs) return false;
    // The time until it was sure counts, too.
    if (isPool && options.maxLossMs !== null) return false;
    if (isHalf && (options.maxLossMs !== null || replicas.length < 2 || !replicas.includes(far.name))) return false;
    return options.maxLossMs === null || (options.maxLossMs >= maxLossMsSure && replicas.length > 1);
  }

  function isKept({ options }: VolumeDoc): boolean {
    // One that lives without the store goes on saying that its copies have everything.
    return policyOf(options) !== 'auto' || options.maxLossMs === 0;
  }
}
