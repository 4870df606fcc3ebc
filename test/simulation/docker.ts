import { messageOf } from '../../controller/model/errors.ts';
import { parseVolumeName } from '../../controller/model/names.ts';
import { createVolume } from '../../plugin/volumes/create.ts';
import { mountVolume, unmountVolume } from '../../plugin/volumes/mounts.ts';
import { type Container, startContainer } from './containers.ts';
import type { Host } from './host.ts';
import type { Process } from './process.ts';
import type { World } from './world.ts';

/** The Docker daemon of a host, as far as volumes see it. */

/** It waits so long for a mount; the plugin gives up a little earlier. */
const dockerMs = 30_000;
const requestMs = 25_000;

/** A request to the plugin's process: null is told if there is none, or it dies, or what Docker waits for takes too long. */
export function ask<T>(
  world: World,
  host: Host,
  work: (process: Process, signal: AbortSignal) => Promise<T>,
  done: (answer: { readonly value: T } | { readonly error: unknown } | null) => void,
): void {
  const { scheduler, random } = world;
  const process = host.process();
  if (process === null || !host.isUp()) {
    done(null);
    return;
  }
  const { gate } = process;
  const limit = new AbortController();
  let isOver = false;
  const end = (answer: Parameters<typeof done>[0]) => {
    if (isOver) return;
    isOver = true;
    late.cancel();
    gaveUp.cancel();
    done(answer);
  };
  const late = host.after(requestMs, () => gate.deliver(() => limit.abort(new Error(`not done in ${requestMs} ms`))));
  const gaveUp = host.after(dockerMs, () => end(null));
  gate.onDeath(() => end(null));
  scheduler.after(random.between(0.1, 5), () =>
    gate.deliver(() =>
      gate.pass(work(process, limit.signal)).then(
        (value) => end({ value }),
        (error: unknown) => end({ error }),
      ),
    ),
  );
}

/** `docker run -v NAME:/data --volume-driver flock`. `done`: the container, or why there is none. */
export function dockerRun(
  world: World,
  host: Host,
  name: string,
  options: Readonly<Record<string, string>>,
  done: (container: Container | string) => void = () => undefined,
): void {
  const { random, scheduler } = world;
  if (host.removing.has(name)) {
    done('it is being removed');
    return;
  }
  const mountId = random.hex(16);
  const boot = host.bootId();
  const end = done;
  done = (result) => {
    host.starting.delete(mountId);
    end(result);
  };
  host.starting.set(mountId, name);
  world.trace(() => `${host.name}: docker run of ${name}, mount ${mountId.slice(0, 6)}`);
  ask(
    world,
    host,
    async ({ context }, signal) => {
      await createVolume(context, name, options, signal);
      await mountVolume(context, name, mountId, signal);
      return context.state.byName(parseVolumeName(name));
    },
    (answer) => {
      const why =
        answer === null
          ? 'no answer'
          : 'error' in answer
            ? messageOf(answer.error)
            : answer.value === undefined
              ? 'gone'
              : null;
      if (why !== null || answer === null || 'error' in answer || answer.value === undefined) {
        world.trace(() => `${host.name}: docker run of ${name} failed: ${why}`);
        done(why ?? 'failed');
        return;
      }
      for (const strike of host.atMount) strike();
      host.atMount.clear();
      const { id, name: volumeName } = answer.value;
      scheduler.after(random.between(10, startMsMax), () => {
        if (host.bootId() !== boot) {
          done('the host went down');
          return;
        }
        done(startContainer(world, host, { volume: id, name: volumeName, mountId }));
      });
    },
  );
}

/** From the answer to a mount to the first process of the container. */
const startMsMax = 300;

export function dockerStop(world: World, container: Container): void {
  container.end();
  unmountLater(world, container);
}

/** Docker sees that a container has ended and gives the mount back; if the plugin does not answer then, never. */
export function unmountLater(world: World, { host, name, mountId }: Container): void {
  const boot = host.bootId();
  world.scheduler.after(world.random.between(10, 200), () => {
    if (host.bootId() !== boot) return;
    ask(
      world,
      host,
      ({ context }, signal) => unmountVolume(context, name, mountId, signal),
      (answer) => {
        if (answer !== null && !('error' in answer)) return;
        const why = answer === null ? 'no answer' : messageOf(answer.error);
        world.trace(() => `${host.name}: unmount of ${name} for ${mountId.slice(0, 6)} failed: ${why}`);
      },
    );
  });
}
