import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { SessionId } from '../../controller/store/store.ts';
import type { Container } from './containers.ts';
import { collect, commonOf, headOf, includes, type Record } from './content.ts';
import type { Host } from './host.ts';
import type { World } from './world.ts';

/** What must always hold (docs/design.md). Each throws a Violation, which ends the run. */
export type Checks = {
  /** A container is about to write, or may from now on. */
  writer(container: Container): void;
  /** It has just been started. */
  started(container: Container): void;
  wrote(record: Record): void;
  written(): readonly Record[];
  received(host: Host, id: DatasetId): void;
  /** A copy has been brought up to date. */
  replicated(id: DatasetId): void;
  /** A person has gone back to an older content, or takes that of a copy by force, whatever it is. */
  rolledBack(id: DatasetId): void;
  /** Of the store. Called often. */
  epochs(): void;
  /** Of a node's own record. */
  recorded(before: VolumeRecord, after: VolumeRecord): void;
  /** A node is about to lock something with this session of its own. */
  locks(host: Host, session: SessionId): void;
  /** The store has just passed the volume from this node on to another, which asked for it. */
  handedOver(from: Host, id: DatasetId): void;
  /**
   * A host is about to be lost for good, and with it what only that one had. What is in its trash, as people went back to an older
   * content, may be in old copies still; they go as soon as they follow.
   */
  lost(host: Host): void;
  /** People have given this volume up. */
  givenUp(id: DatasetId): void;
  /** Nothing else that was ever written is gone. Only when all hosts are there. */
  nothingLost(): void;
  /** Notes that a rule is broken, and throws it. */
  violate(rule: string, text: string): never;
  /** The first that was thrown, wherever it went: the code under test catches what comes out of the simulation's parts. */
  violation(): Violation | null;
};

export class Violation extends Error {}

export function createChecks(world: () => World): Checks {
  const written: Record[] = [];
  const excused = new Set<Record>();
  /** The last record that all copies of the volume had at some moment. */
  const safe = new Map<DatasetId, Record>();
  const owners = new Map<
    DatasetId,
    { readonly epoch: number; readonly owner: NodeName; readonly replicas: readonly NodeName[] }
  >();

  let first: Violation | null = null;

  function violate(rule: string, text: string): never {
    first ??= new Violation(`${rule}: ${text}, at ${world().scheduler.nowMs().toFixed(1)} ms`);
    throw first;
  }

  /** A node that was listed only then could not have begun to wait before: the guard time starts with each change of the document. */
  const listedAtMs = new Map<string, number>();

  function listed(id: DatasetId, node: NodeName): number {
    return listedAtMs.get(`${id} ${node}`) ?? Number.NEGATIVE_INFINITY;
  }

  function noteListed(id: DatasetId, replicas: readonly NodeName[], before: readonly NodeName[]): void {
    for (const node of replicas) {
      if (before.includes(node)) continue;
      listedAtMs.set(`${id} ${node}`, world().scheduler.nowMs());
      // From now on it is a copy, too, and may have less than the others.
      const record = safe.get(id);
      const live = world().host(node).disk.datasets.get(id);
      if (record !== undefined && live !== undefined && !includes(headOf(live.tree), record)) safe.delete(id);
    }
  }

  function proofAgeMs(host: Host, id: DatasetId, replicas: readonly NodeName[]): number {
    const promises = host.proofs.promises.get(id);
    const promisedAtMs =
      replicas.length === 0
        ? Number.POSITIVE_INFINITY
        : Math.min(
            ...replicas.map((node) => Math.max(promises?.get(node) ?? Number.NEGATIVE_INFINITY, listed(id, node))),
          );
    return world().scheduler.nowMs() - Math.max(host.proofs.storeAtMs, promisedAtMs);
  }

  function epochs(): void {
    for (const [id, { doc }] of world().docs()) {
      const { epoch, owner } = doc;
      const before = owners.get(id);
      if (before !== undefined && epoch < before.epoch)
        violate('epochs only grow', `${id} went from epoch ${before.epoch} to ${epoch}`);
      if (before !== undefined && owner !== before.owner && epoch === before.epoch)
        violate('epochs only grow', `${id} went from ${before.owner} to ${owner} within epoch ${epoch}`);
      if (before?.replicas !== doc.replicas) noteListed(id, doc.replicas, before?.replicas ?? []);
      owners.set(id, { epoch, owner, replicas: doc.replicas });
    }
  }

  function checkSafe(host: Host, id: DatasetId, when: string): void {
    const record = safe.get(id);
    const live = host.disk.datasets.get(id);
    if (record === undefined || live === undefined) return;
    if (!includes(headOf(live.tree), record))
      violate('I4', `${id} on ${host.name} ${when} is without record ${record.number}, which all its copies had`);
  }

  function foundIn(hosts: readonly Host[], phase?: VolumeRecord['phase']['kind']): ReadonlySet<Record> {
    const found = new Set<Record>();
    for (const host of hosts) collect(host, phase, found);
    return found;
  }

  /** Written, and on none of the hosts. */
  function missing(hosts: readonly Host[]): readonly Record[] {
    const found = foundIn(hosts);
    return written.filter((record) => !found.has(record) && !excused.has(record));
  }

  return {
    writer(container) {
      const { host, volume } = container;
      if (container.isFrozen()) return;
      for (const other of world().hosts) {
        if (other === host) continue;
        for (const rival of other.containers)
          if (rival.volume === volume && !rival.isFrozen())
            violate('I1', `${volume} may be written on ${host.name} and on ${other.name}`);
      }
      epochs();
      const doc = world().docs().get(volume)?.doc;
      if (doc === undefined)
        return violate('I1', `${volume} is written on ${host.name}, but the store has no such volume`);
      const record = host.file.records.get(volume);
      const held = record === undefined ? 'nothing' : `${record.phase.kind} with epoch ${record.epoch}`;
      if (doc.owner !== host.name || record?.epoch !== doc.epoch)
        violate(
          'I1',
          `${volume} is written on ${host.name} (${held}), but belongs to ${doc.owner} with epoch ${doc.epoch}`,
        );
      if (record.phase.kind !== 'ready') violate('I3', `${volume} is written on ${host.name}, where it is ${held}`);
      const { fenceAfterMs, fenceMs, clockRateErrorMax, slackMs } = world().timing;
      const ageMs = proofAgeMs(host, volume, doc.replicas);
      if (ageMs > (fenceAfterMs + fenceMs) * (1 + clockRateErrorMax) + slackMs)
        violate('I2', `${volume} is written on ${host.name} ${ageMs.toFixed(0)} ms after the last proof`);
    },
    started: ({ host, volume }) => checkSafe(host, volume, 'at the start of a container'),
    wrote(record) {
      written.push(record);
    },
    written: () => written,
    received(host, id) {
      const kind = host.file.records.get(id)?.phase.kind;
      if (kind !== 'replica') violate('I3', `a stream went into ${id} on ${host.name}, where it is ${kind}`);
    },
    replicated(id) {
      const doc = world().docs().get(id)?.doc;
      if (doc === undefined || doc.replicas.length === 0) return;
      // The owner among them, for after a rollback the copies still have what nobody wants any more.
      const heads = [doc.owner, ...doc.replicas].map((node) => {
        const live = world().host(node).disk.datasets.get(id);
        return live === undefined ? null : headOf(live.tree);
      });
      const common = commonOf(heads);
      const before = safe.get(id);
      if (common !== null && (before === undefined || includes(common, before))) safe.set(id, common);
    },
    rolledBack(id) {
      safe.delete(id);
    },
    epochs,
    recorded(before, after) {
      if (after.epoch < before.epoch)
        violate('epochs only grow', `a record of ${after.id} went from epoch ${before.epoch} to ${after.epoch}`);
    },
    locks(host, session) {
      if (host.file.facts.get('session') !== session)
        violate(
          'sessions are remembered',
          `${host.name} locks with session ${session}, which it would forget in a crash`,
        );
    },
    handedOver(from, id) {
      const owner = world().docs().get(id)?.doc.owner;
      if (owner !== undefined && world().host(owner).isLost()) return;
      const before = from.disk.datasets.get(id);
      const after = owner === undefined ? undefined : world().host(owner).disk.datasets.get(id);
      const record = before === undefined ? null : headOf(before.tree);
      if (record !== null && (after === undefined || !includes(headOf(after.tree), record)))
        violate('I4', `${id} was handed from ${from.name} to ${owner} without record ${record.number}`);
    },
    violate,
    violation: () => first,
    lost(host) {
      for (const record of missing(world().hosts.filter((other) => other !== host))) excused.add(record);
      const wanted = foundIn(world().hosts, 'ready');
      for (const record of foundIn([host], 'trashed')) if (!wanted.has(record)) excused.add(record);
    },
    givenUp(id) {
      for (const record of written) if (record.volume === id) excused.add(record);
    },
    nothingLost() {
      const lost = missing(world().hosts);
      const [first] = lost;
      if (first !== undefined)
        violate(
          'I4',
          `${lost.length} of ${written.length} records are nowhere, the first is number ${first.number} of ${first.volume}, written on ${first.node} with epoch ${first.epoch} at ${first.atMs.toFixed(0)} ms`,
        );
      for (const [id, { doc }] of world().docs())
        if (doc.trashed === null) checkSafe(world().host(doc.owner), id, 'at the end');
    },
  };
}
