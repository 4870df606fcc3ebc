import { keys } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import type { Operation, Store } from '../../controller/store/store.ts';
import { createMemory } from '../../plugin/storage/memory.ts';
import { liveOf } from '../../plugin/storage/memory-disk.ts';
import type { Storage } from '../../plugin/storage/storage.ts';
import type { Gate } from './gate.ts';
import type { Host } from './host.ts';
import type { World } from './world.ts';

/** A connection that a killed process leaves behind still delivers what was sent, for so long at most. */
const lingerMsMax = 1_000;

/** The memory store as one process sees it. Notes when the store has proven something, for the checks. */
export function createGatedStore(world: World, host: Host, gate: Gate): Store {
  const { scheduler, random } = world;
  const store = world.store.connect(host.name);
  gate.onDeath(() => void scheduler.after(random.between(0, lingerMsMax), () => void store.close()));

  async function proving<T>(work: () => Promise<T>, proves: (answer: T) => boolean): Promise<T> {
    const atMs = scheduler.nowMs();
    const answer = await gate.pass(work());
    if (proves(answer)) host.proofs.storeAtMs = Math.max(host.proofs.storeAtMs, atMs);
    return answer;
  }

  function noteHandover(operations: readonly Operation[]): void {
    for (const id of passedOn(operations)) world.checks.handedOver(host, id);
  }

  return {
    kind: 'memory',
    get: (key, options) => gate.pass(store.get(key, options)),
    list: (prefix, options) => gate.pass(store.list(prefix, options)),
    async transact(operations) {
      world.failovers.sends(host, operations);
      // What is handed over is locked with the session of its new owner.
      if (passedOn(operations).length === 0)
        for (const operation of operations) if (operation.kind === 'lock') world.checks.locks(host, operation.session);
      for (const strike of host.atTransaction) if (strike(operations)) host.atTransaction.delete(strike);
      const outcome = await proving(
        async () => {
          const outcome = await store.transact(operations);
          if (outcome.kind === 'done') noteHandover(operations);
          return outcome;
        },
        ({ kind }) => kind === 'done',
      );
      world.trace(() => `${host.name}: store ${operations.map(describe).join(', ')}: ${outcomeText(outcome)}`);
      return outcome;
    },
    watch: (prefix, signal, onFault) => ({
      [Symbol.asyncIterator]() {
        const watch = store.watch(prefix, signal, onFault)[Symbol.asyncIterator]();
        return { next: () => gate.pass(watch.next()) };
      },
    }),
    createSession: (request) =>
      proving(
        () => store.createSession(request),
        () => true,
      ),
    renewSession: (id) =>
      proving(
        () => store.renewSession(id),
        (isAlive) => isAlive,
      ),
    destroySession: (id) => gate.pass(store.destroySession(id)),
    close: () => store.close(),
  };
}

/** The volumes that another node gets with it. */
export function passedOn(operations: readonly Operation[]): readonly DatasetId[] {
  return operations.flatMap(({ kind, key }) =>
    kind === 'unlock' && key.startsWith(`${keys.volumes}/`) ? [key.slice(keys.volumes.length + 1) as DatasetId] : [],
  );
}

function describe(operation: Operation): string {
  return `${operation.kind} ${operation.key}`;
}

function outcomeText(outcome: Awaited<ReturnType<Store['transact']>>): string {
  return outcome.kind === 'done' ? 'done' : `conflict, ${outcome.reason}`;
}

/** The memory backend, each call a command that takes its time. What real file systems refuse under a container is refused here too. */
export function createGatedStorage(world: World, host: Host, gate: Gate): Storage {
  const { random, network, checks } = world;
  const memory = createMemory({
    nowMs: host.wallMs,
    randomHex: random.hex,
    disk: host.disk,
    streams: network.streamsOf(host),
  });

  const reads = new Set<unknown>([
    memory.capabilities,
    memory.list,
    memory.exists,
    memory.mount,
    memory.unmount,
    memory.contentMarks,
    memory.estimate,
    memory.resumeToken,
    listSnapshots,
  ]);

  function refuseBroken(isRead: boolean): void {
    if (host.disk.fault === 'failed') throw new FlockError('pool-unusable', 'the pool has failed');
    if (host.disk.fault === 'read-only' && !isRead) throw new FlockError('pool-read-only', 'the pool is read-only');
  }

  const slow =
    <Arguments extends readonly unknown[], Result>(work: (...given: Arguments) => Promise<Result>) =>
    (...given: Arguments): Promise<Result> =>
      gate.own(() =>
        gate.pass(
          host.command(async () => {
            refuseBroken(reads.has(work));
            return await work(...given);
          }),
        ),
      );

  /** Without the sizes, which cost more than all the rest. */
  async function listSnapshots(id: DatasetId): ReturnType<Storage['snapshots']> {
    return liveOf(host.disk, id).snapshots.map(({ name, identity, createdAtMs, holds }) => ({
      name,
      identity,
      createdAtMs,
      uniqueBytes: 0,
      holds: [...holds],
    }));
  }

  function refuseUsed(id: DatasetId): void {
    for (const { volume } of host.containers)
      if (volume === id) throw new FlockError('volume-busy', `the dataset ${id} is mounted in a container`);
  }

  return {
    ...memory,
    pool: () => gate.own(() => gate.pass(host.command(memory.pool))),
    capabilities: slow(memory.capabilities),
    list: slow(memory.list),
    exists: slow(memory.exists),
    create: slow(memory.create),
    destroy: slow(async (id) => {
      refuseUsed(id);
      await memory.destroy(id);
    }),
    resize: slow(memory.resize),
    stamp: slow(memory.stamp),
    mount: slow(memory.mount),
    unmount: slow(memory.unmount),
    snapshot: slow(memory.snapshot),
    snapshots: slow(listSnapshots),
    destroySnapshot: slow(memory.destroySnapshot),
    hold: slow(memory.hold),
    release: slow(memory.release),
    rollback: slow(async (id, name, aside, options) => {
      refuseUsed(id);
      await memory.rollback(id, name, aside, options);
      if (host.file.records.get(id)?.phase.kind === 'rolling-back') checks.rolledBack(id);
    }),
    rename: slow(async (id, to) => {
      refuseUsed(id);
      await memory.rename(id, to);
    }),
    clone: slow(memory.clone),
    promote: slow(memory.promote),
    contentMarks: slow(memory.contentMarks),
    estimate: slow(memory.estimate),
    async send(request, sink, signal) {
      refuseBroken(true);
      await gate.own(() => gate.pass(memory.send(request, sink, signal)));
    },
    receive: (request, source, signal) =>
      gate.own(() =>
        gate.pass(
          host.command(async () => {
            refuseUsed(request.id);
            refuseBroken(false);
            const received = await memory.receive(request, source, signal);
            refuseUsed(request.id);
            checks.received(host, request.id);
            return received;
          }),
        ),
      ),
    resumeToken: slow(memory.resumeToken),
    abandonReceive: slow(memory.abandonReceive),
    applyOptions: slow(memory.applyOptions),
    close: memory.close,
  };
}
