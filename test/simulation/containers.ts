import type { DatasetId, VolumeName } from '../../controller/model/names.ts';
import type { Users } from '../../plugin/cluster/ports.ts';
import { append } from './content.ts';
import type { Gate } from './gate.ts';
import type { Host } from './host.ts';
import type { World } from './world.ts';

/** A container with one volume, which appends a record to it every now and then. It outlives the plugin, not the machine. */
export type Container = {
  readonly id: string;
  readonly host: Host;
  readonly volume: DatasetId;
  readonly name: VolumeName;
  readonly mountId: string;
  isFrozen(): boolean;
  freeze(why: string): void;
  thaw(): void;
  /** Its processes end; Docker is told by whoever calls. */
  end(): void;
};

const writeMsMin = 60;
const writeMsMax = 500;

export function startContainer(
  world: World,
  host: Host,
  mount: { readonly volume: DatasetId; readonly name: VolumeName; readonly mountId: string },
): Container {
  const { scheduler, random, checks } = world;
  let isFrozen = false;
  let hasEnded = false;
  const id = mount.mountId.slice(0, 6);

  function writeLater(): void {
    scheduler.after(random.between(writeMsMin, writeMsMax), () => {
      if (hasEnded) return;
      if (!isFrozen && host.disk.fault === null) {
        checks.writer(container);
        append(world, container);
      }
      writeLater();
    });
  }

  const container: Container = {
    ...mount,
    id,
    host,
    isFrozen: () => isFrozen,
    freeze(why) {
      if (isFrozen) return;
      world.trace(() => `${host.name}: container ${id} of ${mount.volume} frozen by ${why}`);
      isFrozen = true;
    },
    thaw() {
      if (!isFrozen) return;
      world.trace(() => `${host.name}: container ${id} of ${mount.volume} thawed`);
      isFrozen = false;
      checks.writer(container);
    },
    end() {
      if (!hasEnded) world.trace(() => `${host.name}: container ${id} of ${mount.volume} ends`);
      hasEnded = true;
      host.containers.delete(container);
    },
  };
  world.trace(() => `${host.name}: container ${id} of ${mount.volume} starts`);
  host.containers.add(container);
  checks.writer(container);
  checks.started(container);
  writeLater();
  return container;
}

/** The plugin's way to them. It sends the signals itself, so it sends none while it is stopped. */
export function createSimulatedUsers(world: World, host: Host, gate: Gate, onEnd: (ended: Container) => void): Users {
  const { random } = world;
  const later = <T>(msMax: number, work: () => T) =>
    new Promise<T>((resolve) => {
      host.after(random.between(2, msMax), () => gate.deliver(() => resolve(work())));
    });
  const those = (ids: readonly DatasetId[]) => [...host.containers].filter(({ volume }) => ids.includes(volume));
  return {
    using: (ids) => later(20, () => new Set(those(ids).map(({ volume }) => volume))),
    freeze: (ids) => later(80, () => those(ids).forEach((container) => void container.freeze('plugin'))),
    thaw: (ids, _guarded, mayWrite) =>
      later(20, () => those(ids.filter(mayWrite)).forEach((container) => void container.thaw())),
    stop: (ids) =>
      later(100, () => {
        for (const container of those(ids)) {
          container.end();
          onEnd(container);
        }
      }),
  };
}
