import { messageOf } from '../../controller/model/errors.ts';
import { type DatasetId, parseVolumeName } from '../../controller/model/names.ts';
import type { Entry, Operation, Store } from '../../controller/store/store.ts';
import { ask, dockerRun, dockerStop } from './docker.ts';
import type { Host } from './host.ts';
import type { Process } from './process.ts';
import type { World } from './world.ts';

/**
 * Moves of used volumes, one or two at once, as controllers make them: containers stopped, volumes and the move's document handed over in
 * one transaction, containers started again, on the one side or the other.
 */
export type Moves = {
  begin(): void;
  stop(): void;
};

type Answer<T> = { readonly value: T } | { readonly error: unknown } | null;

const copyRoundsMax = 4;
const looksMax = 20;
const startsMax = 8;
const deadlineMs = { min: 2_000, max: 20_000 };

export function createMoves(world: World, options: (volume: string) => Readonly<Record<string, string>>): Moves {
  const { scheduler, random } = world;
  let isOver = false;

  const pause = (min: number, max: number) =>
    new Promise<void>((resolve) => void scheduler.after(random.between(min, max), resolve));
  const asked = <T>(host: Host, work: (process: Process, signal: AbortSignal) => Promise<T>) =>
    new Promise<Answer<T>>((resolve) => ask(world, host, work, resolve));

  /** As far as it gets: a host may lose its power, and people go home. */
  async function move(from: Host, to: Host, names: readonly string[]): Promise<void> {
    const key = `moves/${random.hex(8)}`;
    const store = world.store.connect(from.name);
    world.trace(() => `${from.name}: MOVE ${key} of ${names.join(', ')} to ${to.name}`);
    try {
      await store.transact([{ kind: 'compare-and-set', key, value: 'copying', index: null }]);
      if (random.chance(0.6)) for (const name of names) await copy(from, to, name);
      for (const container of [...from.containers]) if (names.includes(container.name)) dockerStop(world, container);
      await pause(1, 400);
      if (isOver) return;
      const before = await store.get(key, { fresh: true });
      if (before === null || before.value !== 'copying') return;
      const isDone = await handOver(from, to, names, before);
      const place = isDone ? to : await placeAfterAll(store, before, from, to);
      world.trace(() => `MOVE ${key}: containers start on ${place?.name ?? 'no host'}`);
      if (place !== null) for (const name of names) await start(place, name);
    } catch (error) {
      world.trace(() => `MOVE ${key} is left alone: ${messageOf(error)}`);
    } finally {
      await store.close();
    }
  }

  async function copy(from: Host, to: Host, name: string): Promise<void> {
    for (let round = 0; round < copyRoundsMax && !isOver; round += 1) {
      const answer = await asked(from, async (process, signal) => {
        const agent = process.agent();
        const record = process.context.state.byName(parseVolumeName(name));
        return record === undefined ? null : ((await agent?.moving.copyRound(record, to.name, signal)) ?? null);
      });
      if (answer !== null && 'value' in answer && answer.value?.state === 'done') return;
      await pause(10, 300);
    }
  }

  /** Whether it is certain that all of it was done. */
  async function handOver(from: Host, to: Host, names: readonly string[], { key, index }: Entry): Promise<boolean> {
    const answer = await asked(from, async ({ context, agent, gate }) => {
      const moving = agent()?.moving;
      const records = names.flatMap((name) => context.state.byName(parseVolumeName(name)) ?? []);
      if (moving === undefined || records.length < names.length) throw new Error('not all of them are here');
      const also: readonly Operation[] = [{ kind: 'compare-and-set', key, value: 'starting', index }];
      const end = world.groups.begin({
        key,
        value: 'starting',
        from: from.name,
        to: to.name,
        ids: records.map(({ id }) => id),
      });
      gate.onDeath(end);
      const limitMs = random.between(deadlineMs.min, deadlineMs.max);
      return await moving.handOver({ records, to: to.name, also, deadlineMs: limitMs }).finally(end);
    });
    const why = answer === null ? 'no answer' : 'error' in answer ? messageOf(answer.error) : 'done';
    world.trace(() => `${from.name}: handover of ${names.join(', ')} to ${to.name} with ${key}: ${why}`);
    return why === 'done';
  }

  /** The store knows. Who goes back says so there first, so that a late transaction fits nowhere. */
  async function placeAfterAll(store: Store, { key }: Entry, from: Host, to: Host): Promise<Host | null> {
    for (let look = 0; look < looksMax && !isOver; look += 1) {
      try {
        const now = await store.get(key, { fresh: true });
        if (now?.value === 'starting') return to;
        if (now?.value === 'restoring') return from;
        if (now === null) return null;
        const { index } = now;
        const outcome = await store.transact([{ kind: 'compare-and-set', key, value: 'restoring', index }]);
        if (outcome.kind === 'done') return from;
      } catch {
        // The store is away from here.
      }
      await pause(200, 1_500);
    }
    return null;
  }

  async function start(host: Host, name: string): Promise<void> {
    for (let attempt = 0; attempt < startsMax && !isOver; attempt += 1) {
      const container = await new Promise((resolve) => dockerRun(world, host, name, options(name), resolve));
      if (typeof container !== 'string') return;
      await pause(300, 1_500);
    }
  }

  function ownedBy({ name }: Host): readonly string[] {
    const docs = [...world.docs().values()].map(({ doc }) => doc);
    return docs.filter(({ owner, trashed }) => owner === name && trashed === null).map((doc) => doc.name);
  }

  return {
    begin() {
      const busy = world.hosts.filter(({ containers }) => containers.size > 0);
      if (busy.length === 0) return;
      const several = busy.filter((host) => ownedBy(host).length > 1);
      const from = random.pick(several.length > 0 && random.chance(0.8) ? several : busy);
      const used = random.pick([...from.containers]).name as string;
      const others = ownedBy(from).filter((name) => name !== used);
      const names = others.length === 0 || random.chance(0.2) ? [used] : [used, random.pick(others)];
      const targets = world.hosts.filter((host) => host !== from);
      void move(from, random.pick(targets), names);
    },
    stop() {
      isOver = true;
    },
  };
}

type Group = {
  /** Of the document that changes with the volumes, and what it says then. */
  readonly key: string;
  readonly value: string;
  readonly from: string;
  readonly to: string;
  readonly ids: readonly DatasetId[];
};

/** M3: looks at every change of the store, whoever has made it and whenever it comes. */
export type Groups = {
  /** They are being handed over, by nothing else, until the answer is called; also later together with the document only. */
  begin(group: Group): () => void;
  changed(keys: ReadonlySet<string>): void;
};

type Place = { readonly owner: string; readonly epoch: number; readonly session: string | null };

export function createGroups(world: () => World): Groups {
  const groups: (Group & { isActive: boolean; isDone: boolean })[] = [];
  let before: ReadonlyMap<DatasetId, Place> = new Map();

  function placesNow(): ReadonlyMap<DatasetId, Place> {
    return new Map(
      [...world().docs()].map(([id, { doc, session }]) => [id, { owner: doc.owner, epoch: doc.epoch, session }]),
    );
  }

  /** From lock to lock in one change, which only an owner can do; after a takeover that is another one. */
  function isHanded(old: Place | undefined, now: Place | undefined, { from, to }: Group): boolean {
    if (old === undefined || now === undefined) return false;
    return (
      old.session !== null &&
      now.session !== null &&
      old.owner === from &&
      now.owner === to &&
      now.epoch === old.epoch + 1
    );
  }

  return {
    begin(group) {
      if (groups.length === 0) before = placesNow();
      const begun = { ...group, isActive: true, isDone: false };
      groups.push(begun);
      return () => {
        begun.isActive = false;
      };
    },
    changed(keys) {
      if (groups.length === 0) return;
      const now = placesNow();
      for (const group of groups) {
        const { key, ids, to } = group;
        const handed = ids.filter((id) => isHanded(before.get(id), now.get(id), group));
        const isChanged = !group.isDone && keys.has(key) && valueAt(world(), key) === group.value;
        if (isChanged) group.isDone = true;
        const isWhole = isChanged && handed.length === ids.length;
        if (isWhole || (!isChanged && (handed.length === 0 || !group.isActive))) continue;
        world().checks.violate(
          'M3',
          `of ${ids.join(' and ')} ${handed.join(' and ') || 'none'} went to ${to}, and ${key} was ${isChanged ? '' : 'not '}changed`,
        );
      }
      before = now;
    },
  };
}

function valueAt(world: World, key: string): string | null {
  return world.store.entries().find((entry) => entry.key === key)?.value ?? null;
}
