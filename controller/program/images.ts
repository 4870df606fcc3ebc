import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { FlockError, hasCode, messageOf } from '../model/errors.ts';
import { type NodeName, quote } from '../model/names.ts';
import type { ContainerSpec } from '../model/workload.ts';
import type { Docker } from './docker.ts';
import type { Images } from './home.ts';

export type ImagesParts = {
  readonly node: NodeName;
  readonly docker: Pick<Docker, 'image' | 'loadImage' | 'tagImage'>;
  /** What `docker save` writes there. */
  readonly fetch: (node: NodeName, id: string, signal: AbortSignal) => Promise<Readable>;
  readonly log: Logger;
  /** For tests. */
  readonly patienceMs?: number;
};

/** Images come one after the other; one that takes longer, whose node may hang, is not waited for by those that need another image. */
const patienceMsDefault = 60_000;

export function createImages({ node, docker, fetch, log, patienceMs = patienceMsDefault }: ImagesParts): Images {
  /** The end of the last one that was asked for, of all and of each image. */
  let last: Promise<void> = Promise.resolve();
  const lastOf = new Map<string, Promise<void>>();

  async function isHere(name: string): Promise<boolean> {
    return (await docker.image(name)) !== null;
  }

  /** So that the container shows what the user called it. A name that means another image here stays that one's. */
  async function giveName({ image, imageId }: ContainerSpec): Promise<void> {
    if (isPlainName(image) && !(await isHere(image))) await docker.tagImage(imageId, image);
  }

  async function bring(spec: ContainerSpec, from: NodeName, signal: AbortSignal): Promise<void> {
    const startMs = performance.now();
    const stream = await fetch(from, spec.imageId, signal);
    try {
      await docker.loadImage(stream, signal);
    } finally {
      stream.destroy();
    }
    if (!(await isHere(spec.imageId)))
      throw new FlockError(
        'docker-failed',
        `Docker here calls what node ${from} sent otherwise than ${spec.imageId}: do both keep their images in the same way (docker info, "Storage Driver")?`,
      );
    const ms = Math.round(performance.now() - startMs);
    log.info({ event: 'image.brought', image: spec.image, id: spec.imageId, from, ms }, 'an image from another node');
  }

  async function ensure(name: string, spec: ContainerSpec, from: readonly NodeName[], signal: AbortSignal) {
    const problems: unknown[] = [];
    for (const other of from) {
      signal.throwIfAborted();
      if (await isHere(spec.imageId)) break;
      if (other === node) continue;
      await bring(spec, other, signal).catch((error: unknown) => {
        signal.throwIfAborted();
        problems.push(error);
      });
    }
    if (await isHere(spec.imageId)) return await giveName(spec);
    const tried = problems.length === 0 ? 'no other node can be asked' : problems.map(messageOf).join('; ');
    const areBusy = problems.length > 0 && problems.every((error) => hasCode(error, 'too-many-requests'));
    throw new FlockError(
      areBusy ? 'too-many-requests' : 'docker-failed',
      `the image ${quote(spec.image)} of container ${name} is not on node ${node}, and can't be brought there: ${tried}`,
      { image: spec.image, node },
    );
  }

  function forget(id: string, promise: Promise<void>): void {
    if (lastOf.get(id) === promise) lastOf.delete(id);
  }

  return {
    async ensure({ name, spec }, from, signal) {
      // What is here waits for no transfer: that may take minutes, and this container's node may just have died.
      if (await isHere(spec.imageId)) return await giveName(spec);
      const [before, sameBefore] = [last, lastOf.get(spec.imageId) ?? Promise.resolve()];
      const [turn, same] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      last = turn.promise;
      lastOf.set(spec.imageId, same.promise);
      const late = new AbortController();
      try {
        await unlessAborted(sameBefore, signal);
        await unlessAborted(Promise.race([before, sleep(patienceMs, undefined, late).catch(() => {})]), signal);
        await ensure(name, spec, from, signal);
      } finally {
        late.abort();
        // Whoever gives up does not let the next one go before its time.
        void before.then(turn.resolve);
        void sameBefore.then(same.resolve);
        void same.promise.then(() => forget(spec.imageId, same.promise));
      }
    },
  };
}

/** Not an id, nor a name that says which content it has: those can't be given to an image. */
export function isPlainName(image: string): boolean {
  return !image.includes('@') && !/^(sha256:)?[0-9a-f]{12,64}$/.test(image);
}

function unlessAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    void promise.then(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    });
  });
}
