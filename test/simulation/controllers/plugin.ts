import type { HandoverBody } from '../../../controller/model/api.ts';
import { decodeVolume, keys, type VolumeDoc } from '../../../controller/model/cluster.ts';
import { FlockError, hasCode } from '../../../controller/model/errors.ts';
import { parseNodeName } from '../../../controller/model/names.ts';
import { ownedBy } from '../../../controller/model/ownership.ts';
import { timings } from '../../../controller/model/timing.ts';
import type { Entry, Operation, SessionId, Store } from '../../../controller/store/store.ts';
import type { Host } from './host.ts';
import { volumesOf, type World, workloadsOf } from './world.ts';

/**
 * The plugin of a host in few words: a session, the fence, handovers and takeovers by the real one's rules, as controllers see them. What
 * those rest on inside the plugin is simulated by the plugin's own simulation.
 */
export type Plugin = {
  /** Why Docker can't mount these volumes here now; null: it can. */
  refuses(volumes: readonly string[]): string | null;
  handOver(body: HandoverBody): Promise<void>;
  /** Brings volumes of living nodes here that nothing there needs, as a mount does. Never rejects. */
  obtain(volumes: readonly string[]): Promise<void>;
  lose(): void;
  /** As a health check that fails: its session is over before its time. */
  endSession(): void;
  isAlive(): boolean;
};

const timing = timings.default;
const tickMs = 500;
const ttlMs = 10_000;
const againMs = 300;
const sendMs = { min: 30, max: 400 };

type Known = { readonly doc: VolumeDoc; readonly entry: Entry };

export function createPlugin(world: () => World, host: () => Host): Plugin {
  const { scheduler, random } = world();
  let store: Store | null = null;
  let session: SessionId | null = null;
  let isAnnounced = false;
  let provenAtMs = Number.NEGATIVE_INFINITY;
  /** Volumes of which nothing may be mounted: they are being handed over, and it is not known yet what came of it. */
  const handing = new Set<string>();
  const deadSinceMs = new Map<string, number>();

  const pause = (ms: number) => new Promise<void>((resolve) => void scheduler.after(ms, resolve));
  const client = () => {
    store ??= world().store.connect(host().name);
    return store;
  };
  const isFenced = () => scheduler.nowMs() - provenAtMs > timing.fenceAfterMs;

  async function renew(): Promise<void> {
    const atMs = scheduler.nowMs();
    if (session === null || !(await client().renewSession(session))) {
      session = await client().createSession({ name: host().name, ttlMs, lockDelayMs: 0 });
      isAnnounced = false;
    }
    provenAtMs = atMs;
    if (isAnnounced) return;
    const key = keys.alive(host().name);
    const value = JSON.stringify({ incarnation: random.hex(4), version: '1' });
    isAnnounced = (await client().transact([{ kind: 'lock', key, value, session }])).kind === 'done';
  }

  function fence(): void {
    for (const { name, status, volumes } of host().engine.all())
      if (status === 'running' && volumes.length > 0) {
        world().trace(() => `${host().name}: ${name} is stopped by the fence`);
        host().engine.crash(name, 137);
      }
  }

  /** What a dead node has left, by the rules of controller/model/failover.ts that matter here. */
  async function takeOver(): Promise<void> {
    const [alives, entries] = [await client().list(`${keys.alives}/`, { fresh: true }), await list()];
    const alive = new Set(alives.filter((one) => one.session !== null).map(({ key }) => key.split('/').at(-1)));
    const nowMs = scheduler.nowMs();
    for (const { name } of world().hosts)
      if (alive.has(name)) deadSinceMs.delete(name);
      else if (!deadSinceMs.has(name)) deadSinceMs.set(name, nowMs);
    for (const { doc, entry } of entries) {
      const since = deadSinceMs.get(doc.owner);
      const first = doc.replicas.find((name) => alive.has(name));
      if (since === undefined || nowMs - since < timing.guardMs || first !== host().name) continue;
      const next = { ...ownedBy(doc, host().name, null), failedOverAtMs: host().wallMs() };
      // As the lock of the volume does it: whoever is back keeps what is its own.
      const dead = alives.find(({ key }) => key === keys.alive(doc.owner));
      if (dead === undefined) continue;
      const { kind } = await client().transact([
        { kind: 'check-index', key: dead.key, index: dead.index },
        { kind: 'compare-and-set', key: entry.key, value: JSON.stringify(next), index: entry.index },
      ]);
      world().trace(() => `${host().name}: takes ${doc.name} from ${doc.owner}: ${kind}`);
    }
  }

  async function list(): Promise<readonly Known[]> {
    const entries = await client().list(`${keys.volumes}/`, { fresh: true });
    return entries.map((entry) => ({ doc: decodeVolume(entry.value), entry }));
  }

  async function run(): Promise<void> {
    for (;;) {
      await pause(tickMs);
      if (!host().isUp()) continue;
      if (isFenced()) fence();
      await renew()
        .then(takeOver)
        .catch(() => deadSinceMs.clear());
    }
  }

  /** Beside it: an answer of the store that does not come must not keep the fence from falling. */
  async function guard(): Promise<void> {
    for (;;) {
      await pause(tickMs / 2);
      if (host().isUp() && isFenced()) fence();
    }
  }

  async function known(names: readonly string[]): Promise<readonly Known[]> {
    const all = await list();
    return names.map((name) => {
      const found = all.find(({ doc }) => doc.name === name);
      if (found === undefined) throw new FlockError('volume-not-found', `no volume ${name}`);
      return found;
    });
  }

  /** After a transaction of which nobody knows what came of it: makes sure that it fits nowhere, or sees that it was done. */
  async function settle(names: readonly string[], before: readonly Known[]): Promise<'done' | 'withdrawn'> {
    for (;;) {
      try {
        const now = await known(names);
        if (now.some(({ entry }, index) => entry.index !== before[index]?.entry.index))
          return now.every(({ doc }) => doc.owner !== host().name) ? 'done' : 'withdrawn';
        const bumped = now.map(
          ({ doc, entry: { key, index } }): Operation => ({
            ...({ kind: 'compare-and-set', key, index } as const),
            value: JSON.stringify({ ...doc, revision: doc.revision + 1 }),
          }),
        );
        if ((await client().transact(bumped)).kind === 'done') return 'withdrawn';
      } catch (error) {
        if (!hasCode(error, 'store-unavailable')) throw error;
      }
      await host().later(againMs, () => undefined);
    }
  }

  function refuseUsed(names: readonly string[]): void {
    for (const { name, status, volumes } of host().engine.all())
      if (status === 'running' && volumes.some((volume) => names.includes(volume)))
        throw new FlockError('volume-in-use', `container ${name} uses it`);
  }

  async function pass({ to, volumes: names, operations }: HandoverBody): Promise<void> {
    if (isFenced()) throw new FlockError('store-unavailable', 'the store does not answer');
    if (names.some((name) => handing.has(name))) throw new FlockError('handoff-running', 'it is being handed over');
    refuseUsed(names);
    for (const name of names) handing.add(name);
    try {
      await host().later(random.between(sendMs.min, sendMs.max), () => undefined);
      const target = world().host(to);
      if (!target.isUp()) throw new FlockError('node-unreachable', `${to} does not answer`);
      const found = await known(names);
      const foreign = found.find(({ doc }) => doc.owner !== host().name);
      if (foreign !== undefined) throw new FlockError('not-owner', `${foreign.doc.name} is not ours`);
      const passed = found.map(({ doc, entry: { key, index } }): Operation => {
        const value = JSON.stringify(ownedBy(doc, parseNodeName(to), null));
        return { kind: 'compare-and-set', key, value, index };
      });
      const also = operations.map((one): Operation => ({ kind: 'compare-and-set', ...one }));
      const outcome = await client()
        .transact([...also, ...passed])
        .catch(() => null);
      if (outcome?.kind === 'done') return;
      if (outcome?.kind === 'conflict') throw new FlockError('document-changed', outcome.reason);
      if ((await settle(names, found)) === 'withdrawn') throw new FlockError('store-unavailable', 'it was withdrawn');
    } finally {
      for (const name of names) handing.delete(name);
    }
  }

  async function obtain(names: readonly string[]): Promise<void> {
    for (const name of names) {
      const doc = volumesOf(world().store).find((one) => one.name === name);
      if (doc === undefined || doc.owner === host().name) continue;
      const owner = world().host(doc.owner);
      const keeps = workloadsOf(world().store).some(
        ({ node, wanted, volumes }) =>
          node === owner.name && wanted === 'running' && volumes.some((volume) => volume.id === doc.id),
      );
      if (!keeps && owner.isUp())
        await owner.plugin.handOver({ to: host().name, volumes: [name], operations: [], deadlineMs: 5_000 });
    }
  }

  void run();
  void guard();
  return {
    refuses(names) {
      if (names.length === 0) return null;
      if (isFenced() || !isAnnounced) return 'the store does not answer';
      for (const name of names) {
        if (handing.has(name)) return `${name} is being handed over`;
        const doc = volumesOf(world().store).find((one) => one.name === name);
        if (doc?.owner !== host().name) return `${name} is on ${doc?.owner}`;
      }
      return null;
    },
    handOver: pass,
    obtain: (names) => obtain(names).catch(() => undefined),
    lose() {
      handing.clear();
      deadSinceMs.clear();
      isAnnounced = false;
      provenAtMs = Number.NEGATIVE_INFINITY;
      // It is remembered on disk, and may have ended meanwhile.
      const old = session;
      if (old !== null && random.chance(0.7))
        scheduler.after(random.between(100, 8_000), () => world().store.endSession(old));
    },
    endSession() {
      if (session !== null) world().store.endSession(session);
    },
    isAlive: () => session !== null && world().store.sessions().includes(session),
  };
}
