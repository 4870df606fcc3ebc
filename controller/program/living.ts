import { Router } from 'express';
import type { Logger } from 'pino';
import { createEventLog } from '../cluster/event-log.ts';
import { loadIdentity } from '../cluster/files.ts';
import { defaultNodeName, readHostFacts } from '../cluster/host-defaults.ts';
import type { Place } from '../cluster/place.ts';
import type { DockerWatch } from '../docker/watch.ts';
import { FlockError, messageOf } from '../model/errors.ts';
import { portOffsets } from '../model/host-ports.ts';
import type { NodeIdentity, PeerAddress } from '../model/identity.ts';
import type { InspectedWorkload } from '../model/inspected.ts';
import { type NodeName, parseNodeName } from '../model/names.ts';
import { readVersion } from '../server/version.ts';
import { openEmbeddedStore } from '../store/embedded.ts';
import { openStore } from '../store/opening.ts';
import type { Store } from '../store/store.ts';
import type { Docker } from './docker.ts';
import type { Clock, Home, Part } from './home.ts';
import { hostNet } from './host-net.ts';
import { createImages } from './images.ts';
import { createMaker } from './maker.ts';
import type { ControllerPaths } from './paths.ts';
import { askController, fetchImage } from './peer-client.ts';
import { startPeerServer } from './peer-server.ts';
import { createPresence } from './presence.ts';
import type { Reviver } from './reviver.ts';
import { workloadRoutes } from './routes.ts';
import { createClusterView } from './view.ts';
import { createIdsAlone, idsInCluster } from './volume-ids.ts';
import { createWorkloads, type WorkloadTimes } from './workloads.ts';

/** Everything of one place of this host: begun when it comes there, ended when it leaves. */
export type Living = {
  readonly home: Home;
  readonly router: Router;
  /** Of its parts, in Prometheus's text format. */
  figures(): Promise<string>;
  /** Docker has said something. */
  wake(): void;
  /** Works until the signal fires, and closes the store then. */
  run(signal: AbortSignal): Promise<void>;
};

export type LivingParts = {
  readonly paths: ControllerPaths;
  readonly docker: Docker;
  readonly watch: DockerWatch<InspectedWorkload>;
  readonly makeReviver: (home: Pick<Home, 'docker' | 'events' | 'clock' | 'log'>) => Reviver;
  readonly clock: Clock;
  readonly log: Logger;
  /** Other parts of the program, such as moves. */
  readonly parts: readonly ((home: Home) => Part)[];
  /** For tests. */
  readonly openCluster?: (place: NonNullable<Place>) => Store;
  readonly ownName?: () => Promise<NodeName>;
  readonly times?: Partial<WorkloadTimes>;
  readonly peerAddress?: string;
};

const identityMs = 60_000;
const incarnationBytes = 8;
const retryMs = 2_000;

/** Throws while the store's file or the membership can't be read. */
export async function beginLiving(place: Place, parts: LivingParts): Promise<Living> {
  const { paths, docker, watch, clock } = parts;
  const node = place?.name ?? (await (parts.ownName ?? ownName)());
  const log = parts.log.child({ node });
  const identity = place === null ? null : await loadIdentity(paths.cluster);
  const open = parts.openCluster ?? (({ storeAddress, storeToken }) => openStore(storeAddress, storeToken));
  const store = place === null ? await openEmbeddedStore(paths.store) : open(place);
  const view = createClusterView({ store, isCluster: place !== null, clock, log });
  const events = createEventLog({ store, node, clock });
  let current = identity;

  function wayTo(other: NodeName): { readonly identity: NodeIdentity; readonly at: PeerAddress } {
    const doc = view.seen()?.nodes.get(other);
    if (current === null || doc === undefined)
      throw new FlockError('node-not-found', `nothing is known of node ${other}: "flockctl node ls" shows the nodes`);
    return { identity: current, at: { address: doc.address, port: doc.port + portOffsets.controller } };
  }

  const images = createImages({
    node,
    docker,
    async fetch(other, id, signal) {
      const way = wayTo(other);
      return await fetchImage(way.identity, other, way.at, id, signal);
    },
    log,
  });
  const home: Home = {
    ...{
      node,
      clusterId: place?.clusterId ?? null,
      store,
      docker,
      view,
      images,
      maker: createMaker(docker, hostNet),
      net: hostNet,
    },
    ...{ events, clock, paths, log },
    async askController(other, question, signal) {
      const way = wayTo(other);
      return await askController(way.identity, other, way.at, question, signal);
    },
  };
  const workloads = createWorkloads({
    home,
    watch,
    reviver: parts.makeReviver(home),
    volumeIds: place === null ? createIdsAlone(paths.pluginSocket) : idsInCluster,
    ...(parts.times === undefined ? {} : { times: parts.times }),
  });
  const alive = { incarnation: clock.randomHex(incarnationBytes), version: await readVersion(paths.version) };
  const presence = createPresence({ store, node, clock, alive, log });
  const others = parts.parts.map((make) => make(home));
  const router = Router().use(workloadRoutes(view), ...others.flatMap(({ routers = [] }) => routers));

  async function servePeers(me: NodeIdentity, signal: AbortSignal): Promise<void> {
    let problem: string | null = null;
    while (!signal.aborted) {
      try {
        const server = await startPeerServer({
          ...{ identity: me, docker, log, port: me.port + portOffsets.controller, address: parts.peerAddress ?? '::' },
          isMember: (name) => view.seen()?.nodes.has(name) ?? false,
          routers: others.flatMap(({ peerRouters = [] }) => peerRouters),
        });
        await keepCertificate(server.renew, signal);
        await server.close();
      } catch (error) {
        const text = messageOf(error);
        if (text !== problem) log.error({ event: 'images.not-served', reason: text }, 'other nodes get no images');
        problem = text;
        await clock.sleep(retryMs, signal);
      }
    }
  }

  /** The plugin renews it. */
  async function keepCertificate(renew: (identity: NodeIdentity) => void, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await clock.sleep(identityMs, signal);
      const read = await loadIdentity(paths.cluster).catch(() => null);
      if (read === null || read.certificate === current?.certificate) continue;
      current = read;
      renew(read);
    }
  }

  return {
    home,
    router,
    figures: async () => (await Promise.all(others.map(({ figures }) => figures?.() ?? ''))).join(''),
    wake: workloads.wake,
    async run(signal) {
      log.info({ event: 'home.opened', cluster: home.clusterId, store: store.kind }, 'looking at the store');
      const stop = new AbortController();
      const ended = AbortSignal.any([signal, stop.signal]);
      const all = [
        view.run(ended),
        events.run(ended),
        workloads.run(ended),
        ...(identity === null ? [] : [servePeers(identity, ended), presence.run(ended)]),
        ...others.map((part) => part.run(ended)),
      ];
      try {
        // Each ends with the signal only. Where one has a fault all the same, everything begins anew.
        await Promise.all(all);
      } finally {
        stop.abort();
        await Promise.allSettled(all);
        await store.close();
      }
    },
  };
}

/** A host that is in no cluster needs a name for its documents only. */
async function ownName(): Promise<NodeName> {
  try {
    return defaultNodeName((await readHostFacts()).hostName);
  } catch {
    return parseNodeName('host');
  }
}
