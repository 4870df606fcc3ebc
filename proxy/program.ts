import type { RequestListener, Server } from 'node:http';
import type { SecureContext } from 'node:tls';
import type { Logger } from 'pino';
import type { Reach } from '../controller/docker/reach.ts';
import { createDockerSource, type DockerSource, type Listed } from '../controller/docker/source.ts';
import { createDockerWatch, type DockerTimes } from '../controller/docker/watch.ts';
import { FlockError, messageOf } from '../controller/model/errors.ts';
import { webPorts } from '../controller/model/host-ports.ts';
import { listen } from '../controller/server/listen.ts';
import { readVersion } from '../controller/server/version.ts';
import { createWeb, serveWeb } from '../controller/server/web.ts';
import { bootId } from '../plugin/boot-clock.ts';
import type { ProxyApiParts } from './api/parts.ts';
import { type Certificate, createCertificates } from './certificates.ts';
import { createHomes, type HomesParts } from './documents/home.ts';
import { createListening } from './documents/listening.ts';
import { createDrains } from './drains.ts';
import { createObserver, readFigures, routeNames, unserved } from './figures.ts';
import type { Observe } from './gate/observe.ts';
import { createProxyMetrics } from './metrics.ts';
import { isCalled } from './model/collect.ts';
import { hasOurLabels, inspectedSchema, type LocalContainer } from './model/containers.ts';
import type { ProxyPaths } from './paths.ts';
import { readSaved } from './saved.ts';
import { createSaver } from './saver.ts';
import { createServing, type ServingTimes } from './serving.ts';
import { createSettingsFile, type ProxySettings } from './settings.ts';
import type { Stack } from './stack/stack.ts';

/** What a stack is made of, besides its layers. Functions where the answer changes while it runs. */
export type StackWorld = {
  readonly paths: ProxyPaths;
  /** As they were at the start. */
  readonly settings: ProxySettings;
  readonly observe: Observe;
  /** Whether all requests are to be told of. */
  readonly isLogged: () => boolean;
  readonly certificate: (name: string) => Certificate | null;
  readonly secureContext: (name: string) => SecureContext | null;
  /** This node's containers, by id. */
  readonly containers: () => ReadonlyMap<string, LocalContainer>;
  readonly log: Logger;
};

export type ProgramParts = {
  readonly paths: ProxyPaths;
  readonly makeStack: (world: StackWorld) => Stack;
  readonly makeApi: (parts: ProxyApiParts) => RequestListener;
  readonly log: Logger;
  /** For tests. */
  readonly docker?: DockerSource;
  readonly reach?: Reach;
  readonly web?: { readonly host: string; readonly port: number };
  readonly home?: Partial<Pick<HomesParts, 'openCluster' | 'ownAlone' | 'retryMs'>>;
  readonly membershipPollMs?: number;
  readonly times?: { readonly serving?: Partial<ServingTimes>; readonly docker?: Partial<DockerTimes> };
};

/** On loopback only: whoever reads it learns the names of routes and services. */
const webAddress = { host: '127.0.0.1', port: webPorts.proxy } as const;

/** What runs through the gate has so long to end; Docker kills after ten seconds. */
const closeMsMax = 5_000;

/** The proxy of one node, from the start until the signal fires. What the kernel and HAProxy serve outlives it. */
export async function run(parts: ProgramParts, signal: AbortSignal): Promise<void> {
  const { paths, log } = parts;
  const settings = createSettingsFile(paths.settings, log);
  await settings.read();
  const version = await readVersion(paths.version);
  const saved = await savedBefore(paths.saved, log);
  const certificates = createCertificates(paths.certificates);
  const saver = createSaver(paths.saved, log);

  const metrics = createProxyMetrics(() =>
    readFigures({ seen: serving.seen, stack, isStoreUp: () => isStoreUp(), isDockerUp: docker.isUp }),
  );
  const isLogged = () => settings.current().accessLog;
  const stack = parts.makeStack({
    paths,
    settings: settings.current(),
    observe: createObserver(metrics, log, isLogged),
    isLogged,
    certificate: certificates.get,
    secureContext: certificates.context,
    containers: () => serving.local(),
    log,
  });
  const drains = createDrains({ drain: stack.drain, onChange: () => serving.wake(), log });
  const isWanted = ({ id, name, labels }: Listed) =>
    hasOurLabels(labels) ||
    (serving.last()?.documents.links.some(({ container }) => isCalled({ id, name }, container)) ?? false);
  const docker = createDockerWatch({
    source: parts.docker ?? createDockerSource(paths.engineSocket),
    schema: inspectedSchema,
    isWanted,
    onChange: () => serving.wake(),
    log,
    ...(parts.times?.docker === undefined ? {} : { times: parts.times.docker }),
  });
  const homes = createHomes({
    membership: {
      folder: paths.cluster,
      log,
      ...(parts.membershipPollMs === undefined ? {} : { pollMs: parts.membershipPollMs }),
    },
    file: paths.store,
    last: () => serving.last(),
    onChange: () => serving.wake(),
    log,
    ...parts.home,
  });
  const listening = createListening({
    onChange: () => serving.wake(),
    ...(parts.reach === undefined ? {} : { reach: parts.reach }),
  });
  const serving = createServing({
    stack,
    docker,
    home: homes.current,
    listening,
    certificates,
    drains,
    saved,
    bootId: bootId(),
    save: saver.save,
    onTable: (seen) => metrics.setRoutes(routeNames(seen)),
    version,
    nowMs: Date.now,
    log,
    ...(parts.times?.serving === undefined ? {} : { times: parts.times.serving }),
  });
  const isStoreUp = () => homes.current()?.open?.view.fault() === null;

  const api = await listenForFlockctl(
    paths.apiSocket,
    parts.makeApi({
      store: serving.store,
      seen: serving.seen,
      self() {
        const self = serving.self();
        if (self === null) throw new FlockError('not-ready', 'the proxy has just started: try again');
        return self;
      },
      inFlight: stack.inFlight,
      nowMs: Date.now,
      log,
    }),
    log,
  );
  const web = createWeb({
    health: () => ({
      trouble: serving.trouble() ?? unserved(stack.problems()),
      details: {
        generation: serving.seen()?.table.generation ?? 0,
        servedGeneration: stack.generation(),
        store: isStoreUp() ? 'up' : (homes.current()?.open?.view.fault() ?? homes.current()?.problem ?? 'unknown'),
        docker: docker.isUp() ? 'up' : (docker.problem() ?? 'unknown'),
        settings: settings.problem() ?? 'ok',
        problems: Object.fromEntries(serving.seen()?.problems ?? []),
      },
    }),
    metrics: metrics.text,
  });
  log.info({ event: 'proxy.started', version, generation: saved?.generation ?? 0 }, 'looking at Docker and the store');
  await Promise.all([
    homes.run(signal),
    docker.run(signal),
    listening.run(signal),
    serving.run(signal),
    settings.run(signal),
    saver.run(signal),
    serveWeb(web, parts.web ?? webAddress, signal, log),
  ]);
  api?.close();
  api?.closeAllConnections();
  await stack.close(closeMsMax);
  log.info({ event: 'proxy.stopped' }, 'what the kernel and HAProxy serve stays');
}

async function savedBefore(path: string, log: Logger) {
  const saved = await readSaved(path);
  if (saved === null || !('problem' in saved)) return saved;
  log.error({ event: 'saved.unreadable', reason: saved.problem }, 'nothing is served before the store answers');
  return null;
}

async function listenForFlockctl(path: string, handler: RequestListener, log: Logger): Promise<Server | null> {
  try {
    return await listen(path, handler);
  } catch (error) {
    // Routes matter more than flockctl.
    log.error({ event: 'api.not-listening', socket: path, reason: messageOf(error) }, 'flockctl will not work');
    return null;
  }
}
