import { messageOf } from '../../controller/model/errors.ts';
import { parseVolumeName } from '../../controller/model/names.ts';
import { createSnapshot, rollbackVolume } from '../../plugin/volumes/snapshots.ts';
import { removeVolume, restoreVolume } from '../../plugin/volumes/trash.ts';
import { ask, dockerRun, dockerStop } from './docker.ts';
import type { Host } from './host.ts';
import { createMoves } from './moves.ts';
import type { Process } from './process.ts';
import type { World } from './world.ts';

/** People and their containers, busy until `stop`. */
export type Workload = {
  readonly volumes: readonly string[];
  readonly options: (volume: string) => Readonly<Record<string, string>>;
  /** Somebody noticed that the host does not answer, and takes its volumes over elsewhere as soon as that is possible. */
  rescue(host: Host): void;
  stop(): void;
};

const pauseMs = { min: 50, max: 900 };
const failoverOptions: readonly Readonly<Record<string, string>>[] = [
  {},
  { failover: 'auto' },
  { failover: 'auto', 'max-loss': '0' },
  { 'max-loss': '3s' },
  { 'max-loss': '12s' },
  { failover: 'manual' },
  { failover: 'none' },
];
const moveShare = 0.1;

export function startWorkload(world: World): Workload {
  const { scheduler, random } = world;
  const volumes = Array.from({ length: random.whole(2, 4) }, (_, index) => `v${index + 1}`);
  const replicas = new Map(volumes.map((name) => [name, String(random.whole(1, Math.min(2, world.hosts.length - 1)))]));
  const failover = new Map(volumes.map((name) => [name, random.pick(failoverOptions)]));
  const options = (name: string) => ({ replicas: replicas.get(name) ?? '1', ...failover.get(name) });
  const moves = createMoves(world, options);
  let isOver = false;

  const containers = () => world.hosts.flatMap((host) => [...host.containers]);

  function next(): void {
    scheduler.after(random.between(pauseMs.min, pauseMs.max), () => {
      if (isOver) return;
      act();
      next();
    });
  }

  function act(): void {
    if (random.chance(moveShare)) {
      moves.begin();
      return;
    }
    const name = random.pick(volumes);
    const host = random.pick(world.hosts);
    const chance = random.next();
    if (chance < 0.5) {
      // Mostly where nobody has it; a second container now and then.
      if (containers().every((container) => container.name !== name) || random.chance(0.2))
        dockerRun(world, host, name, options(name));
    } else if (chance < 0.7) {
      const running = containers();
      if (running.length > 0) dockerStop(world, random.pick(running));
    } else if (chance < 0.88) takeOver(name, host);
    else if (chance < 0.93) snapshot(name, host);
    else if (chance < 0.96) rollback(name, host);
    else if (chance < 0.98) remove(name, host);
    else restore(name, host);
  }

  /** Where it makes sense, and now and then where it does not. */
  function takeOver(name: string, host: Host): void {
    const found = [...world.docs().values()].find(({ doc }) => doc.name === name && doc.trashed === null);
    if (found === undefined) return;
    const isOrphan = found.session === null;
    if (!isOrphan && random.chance(0.8)) return;
    const force = random.chance(0.3);
    const from =
      found.doc.replicas.length > 0 && random.chance(0.9) ? world.host(random.pick(found.doc.replicas)) : host;
    keepTaking(name, from, force, isOrphan);
  }

  function rescue(host: Host): void {
    for (const { doc } of world.docs().values())
      if (doc.owner === host.name && doc.trashed === null && doc.replicas.length > 0 && random.chance(0.7))
        keepTaking(doc.name, world.host(random.pick(doc.replicas)), random.chance(0.3), true);
  }

  function keepTaking(name: string, from: Host, force: boolean, isPatient: boolean): void {
    attempt(0);
    function attempt(count: number): void {
      if (isOver || count > 12) return;
      // Whatever the copy has: it may have been listed a moment ago.
      if (force) for (const [id, { doc }] of world.docs()) if (doc.name === name) world.checks.rolledBack(id);
      ask(
        world,
        from,
        async (process, signal) => await process.agent()?.takeOver(parseVolumeName(name), { force }, signal),
        (answer) => {
          const why = answer === null ? 'no answer' : 'error' in answer ? messageOf(answer.error) : null;
          world.trace(() => `${from.name}: take over of ${name}${force ? ' by force' : ''}: ${why ?? 'done'}`);
          if (why !== null && isPatient) scheduler.after(random.between(300, 1_500), () => attempt(count + 1));
        },
      );
    }
  }

  function person(
    host: Host,
    what: string,
    work: (process: Process, signal: AbortSignal) => Promise<unknown>,
    done: () => void = () => undefined,
  ): void {
    ask(world, host, work, (answer) => {
      done();
      const why = answer === null ? 'no answer' : 'error' in answer ? messageOf(answer.error) : null;
      world.trace(() => `${host.name}: ${what}: ${why ?? 'done'}`);
    });
  }

  function snapshot(name: string, host: Host): void {
    person(host, `snapshot of ${name}`, ({ context }, signal) =>
      createSnapshot(context, name, `s${random.hex(4)}`, signal),
    );
  }

  function rollback(name: string, host: Host): void {
    person(host, `rollback of ${name}`, async ({ context }, signal) => {
      const record = context.state.byName(parseVolumeName(name));
      if (record === undefined) return;
      const snapshots = await context.storage.snapshots(record.id);
      if (snapshots.length > 0) await rollbackVolume(context, name, random.pick(snapshots).name, signal);
    });
  }

  function remove(name: string, host: Host): void {
    // Docker refuses by itself where one of its containers has the volume.
    if (containers().some((container) => container.name === name) || [...host.starting.values()].includes(name)) return;
    const remove = ({ context }: Process, signal: AbortSignal) => removeVolume(context, name, 'docker', signal);
    host.removing.add(name);
    person(host, `removal of ${name}`, remove, () => host.removing.delete(name));
  }

  function restore(name: string, host: Host): void {
    person(host, `restoring of ${name}`, ({ context }, signal) => restoreVolume(context, name, null, signal));
  }

  next();
  return {
    volumes,
    options,
    rescue,
    stop() {
      isOver = true;
      moves.stop();
    },
  };
}
