import type { Reach } from '../../../controller/docker/reach.ts';
import { FlockError } from '../../../controller/model/errors.ts';
import type { MoveTools, PluginCalls, ProxyCalls } from '../../../controller/moves/ports.ts';
import type { Docker } from '../../../controller/program/docker.ts';
import type { Images } from '../../../controller/program/home.ts';
import { imageId } from '../../support/inspected.ts';
import type { Gate } from '../gate.ts';
import type { Host } from './host.ts';
import type { World } from './world.ts';

/** What a controller asks of its host: each call takes its time, may fail, done or not, and its answer never reaches a dead process. */
export type Calls = {
  readonly docker: Docker;
  readonly plugin: PluginCalls;
  readonly proxy: ProxyCalls;
  readonly reach: Reach;
  readonly bringImage: Images['ensure'];
};

const failShare = 0.04;
/** Until a container takes connections. */
const readyMs = 700;
/** No address of a network, but enough to find the container by. */
const addressOf = (id: string) => id.slice(0, 12);

export function createCalls(world: World, host: Host, gate: Gate): Calls {
  const { scheduler, random, pauses } = world;
  const { engine, plugin } = host;

  function call<T>(
    what: string,
    ms: { readonly min: number; readonly max: number },
    work: () => T | Promise<T>,
  ): Promise<T> {
    const fails = world.isFlaky() && random.chance(failShare) ? random.pick(['refused', 'unanswered'] as const) : null;
    const status = fails === 'refused' ? 409 : null;
    const failed = () => new FlockError('docker-failed', `${what}: ${fails}`, { status });
    world.trace(() => `${host.name}: ${what}${fails === null ? '' : ` (${fails})`}`);
    return gate.pass(
      host.later(random.between(ms.min, ms.max), async () => {
        if (fails === 'refused') throw failed();
        const result = await work();
        if (fails === 'unanswered') throw failed();
        return result;
      }),
    );
  }
  const quick = { min: 1, max: 20 };
  const slow = { min: 20, max: 400 };
  const short = (id: string) => engine.all().find((one) => one.id === id)?.name ?? id.slice(0, 12);

  const docker: Docker = {
    ...engine,
    list: () => call('docker ps', quick, () => engine.list()),
    inspect: (id) => call('docker inspect', quick, async () => addressed(await engine.inspect(id))),
    execute: (...asked) => call('docker exec', quick, () => engine.execute(...asked)),
    tail: (id, lines) => call('docker logs', quick, () => engine.tail(id, lines)),
    events: (signal) => ({
      [Symbol.asyncIterator]() {
        const events = engine.events(signal)[Symbol.asyncIterator]();
        return { next: () => gate.pass(events.next()) };
      },
    }),
    create: (name, body) => call(`docker create ${name}`, slow, () => engine.create(name, body)),
    connect: (network, id, endpoint) =>
      call('docker network connect', quick, () => engine.connect(network, id, endpoint)),
    start: (id) => call(`docker start ${short(id)}`, slow, () => host.start(id)),
    stop: (id, seconds) => call(`docker stop ${short(id)}`, quick, () => host.stop(id, seconds)),
    remove: (id) => call(`docker rm ${short(id)}`, slow, () => engine.remove(id)),
    rename: (id, name) => call(`docker rename ${short(id)} ${name}`, quick, () => engine.rename(id, name)),
    setRestartPolicy: (id, policy) => call('docker update', quick, () => engine.setRestartPolicy(id, policy)),
    network: (name) => call('docker network inspect', quick, () => engine.network(name)),
    createNetwork: (body) => call('docker network create', quick, () => engine.createNetwork(body)),
    image: (name) => call('docker image inspect', quick, () => engine.image(name)),
  };

  const acknowledged = (what: string) => {
    const silent = world.hosts.find((one) => one.isUp() && one.isCut() && one.plugin.isAlive());
    if (silent !== undefined)
      throw new FlockError('not-acknowledged', `${silent.name} has not acknowledged the ${what}`);
  };

  const tools: Pick<MoveTools, 'plugin' | 'proxy' | 'reach'> = {
    plugin: {
      copy: (volume, to) =>
        call(`copy ${volume} to ${to}`, { min: 50, max: 1_500 }, () => {
          if (!world.host(to).isUp()) throw new FlockError('node-unreachable', `${to} does not answer`);
          return { state: 'done', sentBytes: 10, totalBytes: 10, roundMs: 100 };
        }),
      estimate: async () => ({ hasCopy: true, bytes: 10 }),
      handOver: (body) => call(`hand over ${body.volumes.join()} to ${body.to}`, quick, () => plugin.handOver(body)),
    },
    proxy: {
      pause: (service, { forMs, extend }) =>
        call(`pause ${service}`, slow, () => {
          const isPaused = (pauses.get(service) ?? 0) > scheduler.nowMs();
          if (isPaused !== extend) throw new FlockError(isPaused ? 'service-paused' : 'not-paused', service);
          if (host.isCut()) throw new FlockError('store-unavailable', 'the store does not answer');
          pauses.set(service, scheduler.nowMs() + forMs);
          acknowledged('pause');
        }),
      drain: (service) =>
        call(`drain ${service}`, slow, () => {
          if ((pauses.get(service) ?? 0) <= scheduler.nowMs()) throw new FlockError('not-paused', service);
          return { service, untilMs: 0, nodes: [] };
        }),
      release: (service) =>
        call(`release ${service}`, quick, () => {
          if (host.isCut()) throw new FlockError('store-unavailable', 'the store does not answer');
          pauses.delete(service);
          acknowledged('release');
        }),
    },
    reach: (address) =>
      call('reach', quick, () => {
        const found = engine.all().find(({ id }) => addressOf(id) === address);
        const forMs = scheduler.nowMs() - (host.startedMs.get(found?.id ?? '') ?? Number.POSITIVE_INFINITY);
        return found?.status === 'running' && forMs > readyMs && !host.mute.has(found.name);
      }),
  };

  return {
    docker,
    ...tools,
    bringImage: (_workload, from) =>
      call('bring the image', { min: 50, max: 1_000 }, () => {
        if (engine.images.has(imageId)) return;
        const holder = from.find((name) => world.host(name).isUp() && world.host(name).engine.images.has(imageId));
        if (holder === undefined) throw new FlockError('docker-failed', 'the image is nowhere');
        engine.images.set(imageId, { id: imageId, names: new Set(['postgres:15']) });
      }),
  };
}

function addressed(answer: unknown): unknown {
  if (answer === null) return null;
  const found = answer as { readonly Id: string };
  const bridge = { NetworkID: 'b0'.repeat(32), IPAddress: addressOf(found.Id) };
  return { ...found, NetworkSettings: { Networks: { bridge } } };
}
