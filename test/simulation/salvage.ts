import { removeNode } from '../../controller/cluster/removal.ts';
import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { hasCode, messageOf } from '../../controller/model/errors.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import { Violation } from './checks.ts';
import { ask } from './docker.ts';
import type { Host } from './host.ts';
import type { World } from './world.ts';

/** Without any other fault. */
const limitMs = 60_000;
const pauseMs = { min: 300, max: 1_500 };
/** So often people are told that there is a better copy, then they take what they get. */
const politeMax = 6;

/**
 * What people do when a host was lost for good: they bring up elsewhere what has a copy there, and remove the node with the rest. `done`:
 * that was possible, or no host was lost.
 */
export function salvage(world: World, done: () => void): void {
  const { scheduler, random, checks } = world;
  const found = world.hosts.find((host) => host.isLost());
  if (found === undefined) {
    done();
    return;
  }
  const { name } = found;
  const untilMs = scheduler.nowMs() + limitMs;
  /** Of some node: by virtual time a tombstone would look decades old to all of them. */
  const wallMs = () => Math.max(...world.hosts.map((host) => host.wallMs()));
  const store = world.store.connect('people');
  /** How often a copy was no good, by volume. */
  const refused = new Map<DatasetId, number>();
  look();

  function again(why: string): void {
    world.trace(() => `SALVAGE of ${name}: ${why}`);
    if (scheduler.nowMs() > untilMs)
      throw new Violation(`I7: node ${name}, which is lost for good, can't be removed: ${why}`);
    scheduler.after(random.between(pauseMs.min, pauseMs.max), look);
  }

  function look(): void {
    const owned = [...world.docs().values()].map(({ doc }) => doc).filter(({ owner }) => owner === name);
    const next = owned.find((doc) => doc.trashed === null && holdersOf(doc).length > 0);
    if (next === undefined) remove(owned);
    else take(next);
  }

  /** The first copy may not have arrived. */
  function holdersOf({ id, replicas }: VolumeDoc): readonly Host[] {
    return replicas
      .map((node) => world.host(node))
      .filter(({ disk, file }) => disk.datasets.has(id) && file.records.get(id)?.phase.kind === 'replica');
  }

  function take(doc: VolumeDoc): void {
    const attempts = refused.get(doc.id) ?? 0;
    const force = attempts >= politeMax;
    if (force) checks.rolledBack(doc.id);
    ask(
      world,
      random.pick(holdersOf(doc)),
      async (process, signal) => await process.agent()?.takeOver(doc.name, { force }, signal),
      (answer) => {
        if (answer !== null && 'value' in answer) return look();
        if (answer !== null && hasCode(answer.error, 'no-place')) refused.set(doc.id, attempts + 1);
        again(`${doc.id}: ${answer === null ? 'no answer' : messageOf(answer.error)}`);
      },
    );
  }

  function remove(owned: readonly VolumeDoc[]): void {
    const isNode = (node: VolumeDoc['owner']) => node !== name;
    const giveUp = owned.filter(({ trashed, replicas }) => trashed === null && replicas.some(isNode));
    removeNode(store, name, { force: false, lost: true, giveUp: giveUp.map(({ id }) => id) }, wallMs()).then(
      () => {
        for (const { id } of owned) checks.givenUp(id);
        done();
      },
      (error) => again(messageOf(error)),
    );
  }
}
