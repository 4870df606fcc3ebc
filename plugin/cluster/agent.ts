import { markPool } from '../../controller/cluster/membership.ts';
import type { SnapshotName } from '../../controller/model/names.ts';
import { isOwnedHere } from '../../controller/model/ownership.ts';
import { refuseInUse } from '../volumes/context.ts';
import { finishDestroying } from '../volumes/destroy.ts';
import type { Agent, AgentParts } from './agent-parts.ts';
import { createCopies } from './copies.ts';
import { createDirectory } from './directory.ts';
import { createDuties } from './duties.ts';
import { createExtraCopies } from './extra-copies.ts';
import { createFence, tellFence } from './fence.ts';
import { createLease } from './lease.ts';
import { createLimiting } from './limiting.ts';
import { createMoving } from './moving.ts';
import { createObtaining } from './obtaining.ts';
import { createOwnership } from './owning.ts';
import { createPlacing } from './placing.ts';
import { createPromises } from './promises.ts';
import { createProofs } from './proofs.ts';
import { createReplicator, type Replicated } from './replicator.ts';
import { createRetreat } from './retreat.ts';
import { createSuccession } from './succession.ts';
import { createTakers } from './takers.ts';
import { createTransitions } from './transitions.ts';

export type { Agent, AgentParts };

export function createAgent(parts: AgentParts): Agent {
  const { node, alive, timing, store, clock, users, peers, context, memory, deadlines, stashMs, tell } = parts;
  const { storage, state, locks, log } = context;
  const stop = new AbortController();

  const retreat = createRetreat({
    node,
    storage,
    clock,
    owned: () => state.all().flatMap((record) => (isOwnedHere(record) ? [record.id] : [])),
    takers: createTakers({
      node,
      directory: () => directory,
      copies: (id) => (retreat.stateOf(id) === null ? replicator.status(id) : []),
    }),
    isComplete: () => directory.complete(),
    isMarked: () => directory.node(node)?.doc.poolLost === true,
    mark: (isLost) => markPool(store, node, isLost),
    onChange: () => duties.wake(),
    tell,
    log,
  });
  const lease = createLease({
    store: parts.leaseStore ?? store,
    clock,
    timing: { ...timing, lockDelayMs: 0 },
    node,
    alive,
    memory: { load: memory.loadSession, save: memory.saveSession },
    onChange: () => duties.wake(),
    log,
  });
  const proofs = createProofs(lease, (id) => retreat.stateOf(id) !== null);
  const directory = createDirectory({
    store,
    clock,
    cache: { load: memory.loadDocs, save: memory.saveDocs, loadNodes: memory.loadNodes, saveNodes: memory.saveNodes },
    onChange: () => {
      duties.wake();
      placing.wake();
      succession.failover.wake();
    },
    log,
  });
  const transitions = createTransitions({ store, clock, lease, proofs, directory, node });
  const copies = createCopies({
    storage,
    state,
    locks,
    clock,
    directory,
    stashMs,
    destroy: (record) =>
      locks.with(`trash:${record.id}`, 'destruction', stop.signal, () => finishDestroying(context, record)),
    onStale: () => duties.wake(),
    tell,
    log,
  });
  /** What nobody uses needs no proof; whoever comes to use it is asked for one (`assure`). */
  const usedIds = () =>
    state.all().flatMap((record) => {
      const isUsed = record.epoch > 0 && isOwnedHere(record) && state.uses(record.id).length > 0;
      return isUsed ? [record.id] : [];
    });
  for (const [id, deadlineMs] of deadlines.load()) proofs.promised(id, deadlineMs - timing.fenceAfterMs);
  const fence = createFence({
    clock,
    users,
    proofs,
    fenceAfterMs: timing.fenceAfterMs,
    owned: usedIds,
    isWithdrawn: (id) => retreat.stateOf(id) !== null,
    publish: deadlines.publish,
    onChange: (what, ids, by) => tellFence(what, ids, by, (id) => state.byId(id)?.name ?? id, tell),
    log,
  });
  const extras = createExtraCopies();
  const replicated = (): readonly Replicated[] =>
    state.all().flatMap((record) => {
      if (record.phase.kind !== 'ready') return [];
      const doc = directory.volume(record.id)?.doc;
      if (doc === undefined || doc.owner !== node || doc.epoch !== record.epoch || !fence.isProven(record.id, 0))
        return [];
      const copies = [...new Set([...doc.replicas, ...extras.of(record.id)])];
      return [{ doc, copies, isMounted: state.uses(record.id).length > 0 }];
    });
  const replicator = createReplicator({
    storage,
    clock,
    peers,
    locks,
    volumes: replicated,
    namesAfterMs: (id) => state.byId(id)?.namesAfterMs,
    onStale: () => duties.wake(),
    log,
  });
  const duties = createDuties({
    node,
    storage,
    state,
    locks,
    clock,
    users,
    peers,
    lease,
    proofs,
    directory,
    transitions,
    copies,
    replicator,
    retreat,
    tellWatchdog: fence.watch,
    onPromoted: () => limiting.wake(),
    tell,
    log,
  });
  const limiting = createLimiting(context, retreat);
  const moving = createMoving({
    node,
    store,
    storage,
    state,
    locks,
    clock,
    peers,
    proofs,
    directory,
    transitions,
    replicator,
    extras,
    duties,
    refuseInUse: (record) => refuseInUse(context, record, 'operator'),
    usedBytes: (id) => context.usage.of(id)?.usedBytes ?? null,
    signal: stop.signal,
    log,
  });
  const promises = createPromises({
    clock,
    peers,
    proofs,
    directory,
    state,
    timing,
    owned: () =>
      state.all().flatMap(({ id, epoch, phase }) => {
        const doc = transitions.certain(id);
        const isCertain = doc !== null && doc.owner === node && doc.epoch === epoch;
        const isOwned = isCertain && phase.kind === 'ready' && retreat.stateOf(id) === null;
        return isOwned ? [{ id, epoch, holders: doc.replicas }] : [];
      }),
    log,
  });
  const placing = createPlacing({
    node,
    store,
    storage,
    clock,
    directory,
    transitions,
    replicator,
    volumes: replicated,
    usedBytes: (id) => context.usage.of(id)?.totalBytes ?? 0,
    log,
  });
  const succession = createSuccession({
    node,
    storage,
    state,
    locks,
    clock,
    peers,
    lease,
    directory,
    transitions,
    promises,
    duties,
    copies,
    replicator,
    volumes: replicated,
    retreat,
    guardMs: timing.guardMs,
    tell,
    log,
  });

  const ownership = createOwnership({
    ...{ node, state, directory, transitions, replicator, peers },
    obtaining: createObtaining({
      node,
      clock,
      peers,
      state,
      lease,
      directory,
      fence,
      duties,
      retreat,
      fenceAfterMs: timing.fenceAfterMs,
    }),
  });

  return {
    ownership,
    directory,
    answers: {
      'copy-state': (peer, ask, signal) => copies.state(peer, ask, signal),
      'rewind-copy': (peer, ask, signal) => copies.rewind(peer, ask, signal),
      'prune-copy': async (peer, ask, signal) => {
        await copies.prune(peer, ask as typeof ask & { snapshots: readonly SnapshotName[] }, signal);
        return {};
      },
      'list-snapshots': (_peer, { id }) => succession.list(id),
      handoff: (peer, ask, signal) => moving.handoff(peer, ask, signal),
      promise: async (_peer, { volumes }) => ({ ids: promises.give(volumes) }),
      'as-of': async (peer, { run, news }) => succession.asOf.hear(peer, run, news),
    },
    receive: copies.receive,
    moving,
    takeOver: succession.takeover.take,
    previewFailover: succession.preview,
    copies: replicator.status,
    problems: placing.problems,
    isFrozen: fence.isFrozen,
    forward: peers.forward,
    provenForMs() {
      const session = lease.session();
      return session === null ? 0 : Math.max(0, lease.provenAtMs(session) + timing.fenceAfterMs - clock.bootMs());
    },
    async run(signal) {
      signal.addEventListener('abort', () => stop.abort(signal.reason), { once: true });
      await Promise.all([
        lease.run(signal),
        directory.run(signal),
        retreat.run(signal),
        limiting.run(signal),
        fence.run(signal),
        promises.run(signal),
        duties.run(signal),
        replicator.run(signal),
        placing.run(signal),
        succession.asOf.run(signal),
        succession.failover.run(signal),
      ]);
    },
  };
}
