import type { Logger } from 'pino';
import { createEventLog } from '../../../controller/cluster/event-log.ts';
import { createDockerWatch } from '../../../controller/docker/watch.ts';
import { isOurs } from '../../../controller/model/container-spec.ts';
import { inspectedWorkloadSchema } from '../../../controller/model/inspected.ts';
import type { BeginParts } from '../../../controller/moves/beginning.ts';
import { createDrainer } from '../../../controller/moves/drainer.ts';
import { createMover } from '../../../controller/moves/mover.ts';
import type { MoveTools } from '../../../controller/moves/ports.ts';
import { createRecords } from '../../../controller/moves/records.ts';
import { createEndings } from '../../../controller/program/endings.ts';
import type { Clock, Home, Images } from '../../../controller/program/home.ts';
import { createLocalContainers } from '../../../controller/program/local.ts';
import { createMaker } from '../../../controller/program/maker.ts';
import { createOwnCalls } from '../../../controller/program/own-calls.ts';
import { createPresence } from '../../../controller/program/presence.ts';
import { createReviver } from '../../../controller/program/reviver.ts';
import { createClusterView } from '../../../controller/program/view.ts';
import { idsInCluster } from '../../../controller/program/volume-ids.ts';
import { createWorkloads } from '../../../controller/program/workloads.ts';
import type { Store } from '../../../controller/store/store.ts';
import { quietNet } from '../../support/quiet-net.ts';
import { createGate, type Gate } from '../gate.ts';
import { sleepBy } from '../scheduler.ts';
import { createCalls } from './calls.ts';
import type { Host } from './host.ts';
import type { World } from './world.ts';

/** A controller's process, put together as controller/program does it, with the simulation's Docker, plugin, proxy and store. */
export type Controller = {
  readonly gate: Gate;
  /** What flockctl reaches. */
  readonly begin: BeginParts;
  kill(): void;
};

export function startController(world: World, host: Host): Controller {
  const { scheduler, random } = world;
  const gate = createGate(scheduler);
  const running = new AbortController();
  const { signal } = running;
  const store = createGatedStore(world, host, gate);
  const log = createLog(world, host);
  const clock: Clock = {
    bootMs: host.bootMs,
    nowMs: host.wallMs,
    randomHex: (bytes) => random.hex(2 * bytes),
    sleep: sleepBy(scheduler.after, gate.deliver),
  };
  const node = host.name;
  const calls = createCalls(world, host, gate);
  const endings = createEndings(clock.bootMs);
  const docker = createOwnCalls(calls.docker, endings);
  const view = createClusterView({ store, isCluster: true, clock, log });
  const events = createEventLog({ store, node, clock });
  const images: Images = { ensure: calls.bringImage };
  const home = {
    ...{ node, clusterId: 'c', store, docker, view, images, maker: createMaker(docker, quietNet), events, clock, log },
  } as unknown as Home;
  const watch = createDockerWatch({
    source: docker,
    schema: inspectedWorkloadSchema,
    isWanted: ({ labels, volumeDrivers }) => isOurs(labels, volumeDrivers),
    onChange: () => workloads.wake(),
    onEvent: endings.take,
    log,
    sleep: clock.sleep,
  });
  const reviver = createReviver({ docker, endings, events, clock, log });
  const workloads = createWorkloads({ home, watch, reviver, volumeIds: idsInCluster });
  const tools: MoveTools = {
    ...{ node, store, docker, images, maker: home.maker, net: quietNet, clock, log },
    ...{ plugin: calls.plugin, proxy: calls.proxy, reach: calls.reach, locals: createLocalContainers(docker) },
  };
  const records = createRecords({
    ...{ store, clock, log },
    onEnd: (doc) => events.tell(doc.failure === null ? 'move-done' : 'move-failed', doc.service, doc.id),
  });
  const mover = createMover({ tools, records, view });
  const begin = { store, view, events, clock };
  const drainer = createDrainer({ tools, mover, view, begin, events, log });
  const presence = createPresence({ store, node, clock, alive: { incarnation: random.hex(8), version: '1' }, log });
  for (const part of [view, events, watch, workloads, mover, drainer, presence]) void part.run(signal);
  return {
    gate,
    begin,
    kill() {
      gate.kill();
      running.abort(new Error('killed'));
    },
  };
}

const lingerMsMax = 1_000;

function createGatedStore(world: World, host: Host, gate: Gate): Store {
  const { scheduler, random } = world;
  const store = world.store.connect(host.name);
  gate.onDeath(() => void scheduler.after(random.between(0, lingerMsMax), () => void store.close()));
  return {
    kind: 'memory',
    get: (key, options) => gate.pass(store.get(key, options)),
    list: (prefix, options) => gate.pass(store.list(prefix, options)),
    async transact(operations) {
      const outcome = await gate.pass(store.transact(operations));
      world.trace(
        () => `${host.name}: store ${operations.map(({ kind, key }) => `${kind} ${key}`).join(', ')}: ${outcome.kind}`,
      );
      return outcome;
    },
    watch: (prefix, signal, onFault) => ({
      [Symbol.asyncIterator]() {
        const watch = store.watch(prefix, signal, onFault)[Symbol.asyncIterator]();
        return { next: () => gate.pass(watch.next()) };
      },
    }),
    createSession: (request) => gate.pass(store.createSession(request)),
    renewSession: (id) => gate.pass(store.renewSession(id)),
    destroySession: (id) => gate.pass(store.destroySession(id)),
    close: () => store.close(),
  };
}

function createLog(world: World, host: Host): Logger {
  const line = (fields: object, text: string) => world.trace(() => `${host.name}: ${JSON.stringify(fields)} ${text}`);
  const log = { debug: line, info: line, warn: line, error: line, child: () => log };
  return log as unknown as Logger;
}
