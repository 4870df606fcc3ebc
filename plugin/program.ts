import { readFile } from 'node:fs/promises';
import type { RequestListener } from 'node:http';
import { hostname } from 'node:os';
import { Router } from 'express';
import pino from 'pino';
import { type VersionView, versionView } from '../controller/model/api.ts';
import { FlockError, messageOf } from '../controller/model/errors.ts';
import { placementLimits } from '../controller/model/node-index.ts';
import { ownsName } from '../controller/model/volume.ts';
import { createApiServer } from '../controller/server/api-server.ts';
import { listen } from '../controller/server/listen.ts';
import { openStore } from '../controller/store/opening.ts';
import { createCommands } from './exec.ts';
import { dropForeignMounts } from './foreign-mounts.ts';
import { clusterFolder, createMember, type Member } from './member.ts';
import { metricsRoutes, metricsText } from './metrics.ts';
import { createNode, type Node } from './node.ts';
import type { Paths } from './paths.ts';
import { volumeRoutes } from './server/api.ts';
import { type ClusterDeps, clusterRoutes } from './server/cluster-api.ts';
import { createDockerServer } from './server/docker.ts';
import { memberRoutes } from './server/member-api.ts';

/** Composition root of the managed plugin; with main.ts the only reader of the environment. Returns when the signal has fired. */
export async function run(
  paths: Paths,
  environment: NodeJS.ProcessEnv,
  answerDocker: (handler: RequestListener) => void,
  signal: AbortSignal,
): Promise<void> {
  const level = environment['FLOCK_LOG_LEVEL'] || 'info';
  const log = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime });
  const version = await readVersion(paths.version);
  const member = createMember({
    paths,
    version: version.version,
    api: () => Router().use(memberRoutes(node, member, true), volumeRoutes(node, owner, version, true)),
    log,
  });
  const node = createNode(paths, environment['FLOCK_SETTINGS'] ?? '', member, log);
  const owner = () => member.identity()?.name ?? hostname();
  answerDocker(createDockerServer(node, owner, log));
  log.info({ event: 'node.listening', socket: paths.dockerSocket }, 'answering Docker');
  await dropForeignMounts(paths.folder, createCommands()).catch((error: unknown) =>
    log.warn({ event: 'mounts.not-dropped', error: messageOf(error) }, 'other file systems of the host may stay busy'),
  );
  const running = node.run(signal);
  const api = await listen(
    paths.apiSocket,
    createApiServer(
      [
        clusterRoutes(clusterDeps(paths, node, member)),
        memberRoutes(node, member, false),
        volumeRoutes(node, owner, version, false),
        metricsRoutes(() => metricsText(node.context(), member.agent())),
      ],
      log,
    ),
  ).catch((error: unknown) => {
    // Volumes matter more than flockctl.
    log.error(
      { event: 'api.not-listening', socket: paths.apiSocket, error: messageOf(error) },
      'flockctl will not work',
    );
    return null;
  });
  await running;
  api?.close();
  api?.closeAllConnections();
  log.info({ event: 'node.stopped' }, 'stopped');
}

/** A host that has just booted makes its pool ready first. */
const startMsMax = 30_000;

function clusterDeps(paths: Paths, node: Node, member: Member): ClusterDeps {
  return {
    folder: clusterFolder(paths),
    identity: member.identity,
    store: member.store,
    openStore: async (address, token) => openStore(address, token),
    format() {
      const context = node.context();
      if (context === null)
        throw new FlockError('not-ready', `the node has not started yet: ${node.problem() ?? 'try again'}`);
      return context.settings().backend;
    },
    volumeNames: () => (node.state()?.all() ?? []).filter(ownsName).map(({ name }) => name),
    copiesWanted: ({ options }) =>
      (options.replicas ?? placementLimits.localDefault) + (options.remoteReplicas ?? placementLimits.remoteDefault),
    ready: () => node.usable(AbortSignal.timeout(startMsMax)),
    nowMs: () => Date.now(),
    joined: member.joined,
  };
}

async function readVersion(path: string): Promise<VersionView> {
  const text = await readFile(path, 'utf8').catch(() => '{"version":"unknown","commit":"unknown"}');
  return versionView.parse({ ...JSON.parse(text), node: process.version });
}
