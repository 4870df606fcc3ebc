import { Router } from 'express';
import type { Logger } from 'pino';
import { watchPlace } from '../cluster/place.ts';
import { createDockerWatch, type DockerTimes } from '../docker/watch.ts';
import { isOurs } from '../model/container-spec.ts';
import { FlockError, messageOf } from '../model/errors.ts';
import { webPorts } from '../model/host-ports.ts';
import { inspectedWorkloadSchema } from '../model/inspected.ts';
import { createApiServer } from '../server/api-server.ts';
import { listen } from '../server/listen.ts';
import { readVersion } from '../server/version.ts';
import { createWeb, serveWeb } from '../server/web.ts';
import { hostClock } from './clock.ts';
import { createDocker, type Docker } from './docker.ts';
import { createEndings } from './endings.ts';
import { type Figures, figuresText } from './figures.ts';
import type { Clock } from './home.ts';
import { beginLiving, type Living, type LivingParts } from './living.ts';
import { createOwnCalls } from './own-calls.ts';
import type { ControllerPaths } from './paths.ts';
import { createReviver, type Reviver } from './reviver.ts';

export type ProgramParts = {
  readonly paths: ControllerPaths;
  /** Parts beside the workloads, such as moves. */
  readonly parts: LivingParts['parts'];
  readonly log: Logger;
  /** For tests. */
  readonly docker?: Docker;
  readonly clock?: Clock;
  readonly web?: { readonly host: string; readonly port: number };
  readonly living?: Partial<Pick<LivingParts, 'openCluster' | 'ownName' | 'times' | 'peerAddress'>>;
  readonly membershipPollMs?: number;
  readonly dockerTimes?: Partial<DockerTimes>;
};

/** On loopback only. */
const webAddress = { host: '127.0.0.1', port: webPorts.controller } as const;
/** On containers of flock itself, which are nobody's workloads. */
const programLabel = 'flock-program';
const retryMs = 2_000;

/** The controller of one node, from the start until the signal fires. */
export async function run(parts: ProgramParts, signal: AbortSignal): Promise<void> {
  const { paths, log } = parts;
  const clock = parts.clock ?? hostClock;
  const endings = createEndings(clock.bootMs);
  const engine = parts.docker ?? createDocker(paths.engineSocket);
  const docker = createOwnCalls(engine, endings);
  let living: Living | null = null;
  let reviver: Reviver | null = null;
  const watch = createDockerWatch({
    source: docker,
    schema: inspectedWorkloadSchema,
    isWanted: ({ labels, volumeDrivers }) => !Object.hasOwn(labels, programLabel) && isOurs(labels, volumeDrivers),
    onChange: () => living?.wake(),
    onEvent: endings.take,
    log,
    ...(parts.dockerTimes === undefined ? {} : { times: parts.dockerTimes }),
  });
  const livingParts: LivingParts = {
    ...{ paths, docker, watch, clock, log, parts: parts.parts, ...parts.living },
    makeReviver({ events }) {
      reviver = createReviver({ docker, endings, events, clock, log });
      return reviver;
    },
  };

  const dispatch = Router().use((request, response, next) => {
    if (living === null) throw new FlockError('not-ready', 'the controller has just started: try again');
    living.router(request, response, next);
  });
  const api = await listen(paths.apiSocket, createApiServer([dispatch], log, 'docker-failed')).catch(
    (error: unknown) => {
      // Containers matter more than flockctl.
      log.error({ event: 'api.not-listening', socket: paths.apiSocket, reason: messageOf(error) }, 'no flockctl move');
      return null;
    },
  );
  const isStoreUp = () => living !== null && living.home.view.seen() !== null && living.home.view.fault() === null;
  const web = createWeb({
    health: () => ({
      trouble: troubleOf(
        living,
        watch.containers() === null ? (watch.problem() ?? 'Docker has not answered yet') : null,
      ),
      details: {
        store: isStoreUp() ? 'up' : (living?.home.view.fault() ?? 'not seen yet'),
        docker: watch.isUp() ? 'up' : (watch.problem() ?? 'unknown'),
      },
    }),
    metrics: async () =>
      (await figuresText({
        ...{ isStoreUp: isStoreUp(), isDockerUp: watch.isUp(), revivals: reviver?.count() ?? 0 },
        ...countsOf(living),
      })) + ((await living?.figures()) ?? ''),
  });
  const version = await readVersion(paths.version);
  log.info({ event: 'controller.started', version }, 'looking at Docker and the store');

  /** One place after the other. */
  async function followPlace(): Promise<void> {
    let stop = new AbortController();
    let before: Promise<void> = Promise.resolve();
    const membership = { folder: paths.cluster, log };
    const pollMs = parts.membershipPollMs;
    for await (const place of watchPlace({ ...membership, ...(pollMs === undefined ? {} : { pollMs }) }, signal)) {
      stop.abort();
      await before;
      stop = new AbortController();
      const ended = AbortSignal.any([signal, stop.signal]);
      before = live(() => beginLiving(place, livingParts), ended);
    }
    await before;
  }

  async function live(begin: () => Promise<Living>, ended: AbortSignal): Promise<void> {
    let problem: string | null = null;
    while (!ended.aborted) {
      try {
        const begun = await begin();
        living = begun;
        await begun.run(ended);
      } catch (error) {
        const text = messageOf(error);
        if (text !== problem) log.error({ event: 'home.not-opened', reason: text }, 'tried again');
        problem = text;
        await clock.sleep(retryMs, ended);
      }
      living = null;
    }
  }

  await Promise.all([followPlace(), watch.run(signal), serveWeb(web, parts.web ?? webAddress, signal, log)]);
  api?.close();
  api?.closeAllConnections();
  log.info({ event: 'controller.stopped' }, 'containers go on');
}

/** A store that does not answer is not this program's trouble: nothing is decided meanwhile, and what runs goes on. */
function troubleOf(living: Living | null, dockerProblem: string | null): string | null {
  return (
    dockerProblem ??
    (living === null ? 'it is not known yet where this host belongs, or its store can’t be opened' : null)
  );
}

function countsOf(living: Living | null): Pick<Figures, 'workloads' | 'moves'> {
  const all = [...(living?.home.view.seen()?.workloads.values() ?? [])].map(({ doc }) => doc);
  const own = all.filter(({ node }) => node === living?.home.node);
  const running = own.filter(({ wanted }) => wanted === 'running');
  return {
    workloads: {
      running: running.filter(({ containerId }) => containerId !== null).length,
      stopped: own.length - running.length,
      unmade: running.filter(({ containerId }) => containerId === null).length,
    },
    moves: new Set(all.flatMap(({ move }) => move ?? [])).size,
  };
}
