import { setTimeout as sleep } from 'node:timers/promises';
import express, { Router } from 'express';
import type { Logger } from 'pino';
import { createEventLog } from '../controller/cluster/event-log.ts';
import { loadIdentity } from '../controller/cluster/files.ts';
import { wasRemoved } from '../controller/cluster/founding.ts';
import { admit } from '../controller/cluster/joining.ts';
import { renewCertificate } from '../controller/cluster/renewal.ts';
import { decodeCluster, keys } from '../controller/model/cluster.ts';
import { FlockError, messageOf } from '../controller/model/errors.ts';
import { portOffsets } from '../controller/model/host-ports.ts';
import type { NodeIdentity } from '../controller/model/identity.ts';
import type { NodeName } from '../controller/model/names.ts';
import { type Profile, timings } from '../controller/model/timing.ts';
import { openStore } from '../controller/store/opening.ts';
import type { SessionId, Store } from '../controller/store/store.ts';
import { hostClock } from './boot-clock.ts';
import { type Agent, createAgent } from './cluster/agent.ts';
import { readDeadlines, writeDeadlines } from './deadlines.ts';
import { createCommands } from './exec.ts';
import { metricsText, serveMetrics } from './metrics.ts';
import { ownFoldersOf, type Paths } from './paths.ts';
import { createPeers, peerRoutes } from './peer/calls.ts';
import { createCarriers } from './peer/carrier.ts';
import { createPeerClient } from './peer/client.ts';
import { createDoor, createShutDoors } from './peer/door.ts';
import { createPacer } from './peer/pacing.ts';
import { createPartials, type Partials } from './peer/partials.ts';
import { receiveSnapshot } from './peer/receiver.ts';
import { startPeerServer } from './peer/server.ts';
import { createUsers } from './users.ts';
import type { Context } from './volumes/context.ts';
import { keepWatchdog } from './watchdog-process.ts';

/**
 * This host's part in a cluster, if it has one: what node.json says is started with the node, and again when the host becomes a member
 * while it runs. Nothing here keeps the node from serving what it has: without a cluster, or before its store answers, there is no agent.
 */
export type Member = {
  identity(): NodeIdentity | null;
  store(): Store | null;
  agent(): Agent | null;
  /** The host has just become a member: its volumes become the cluster's. */
  joined(identity: NodeIdentity): Promise<void>;
  /** Reads whether there is a membership; throws `not-ready` where that can't be told. */
  load(): Promise<void>;
  /** Runs the membership until the signal fires. Never throws. */
  run(context: Context, signal: AbortSignal): Promise<void>;
};

export type MemberParts = {
  readonly paths: Paths;
  readonly version: string;
  /** What other nodes may ask besides the calls between nodes: the REST API. */
  readonly api: () => Router;
  readonly log: Logger;
};

const retryMs = 2_000;
/** Nobody takes a certificate of a clock that was wrong: soon after it is right, there is to be another one. */
const renewalMs = 600_000;
const partialsMs = 3600 * 1000;

export function createMember({ paths, version, api, log }: MemberParts): Member {
  const changed = createBell();
  let identity: NodeIdentity | null = null;
  let store: Store | null = null;
  let agent: Agent | null = null;
  let isLoaded = false;

  /** Everything of one membership; returns when the signal fires or the membership could not be begun. */
  async function serve(me: NodeIdentity, context: Context, signal: AbortSignal): Promise<void> {
    const opened = openStore(me.storeAddress, me.storeToken);
    let leaseStore: Store | null = null;
    const stop = new AbortController();
    const ended = AbortSignal.any([signal, stop.signal]);
    const watchdog = keepWatchdog(paths, createCommands(), ended, log);
    let current: Agent | null = null;
    const client = createPeerClient({ identity: me, resolve: (node) => current?.directory.node(node)?.doc ?? null });
    try {
      const profile = await readProfile(opened, context, ended);
      const folder = `${paths.folder}/cluster/channels`;
      const { storage } = context;
      const isEncrypted = () => context.settings().encryption === 'on';
      const pacer = createPacer(() => context.settings().transferBytesPerSecond);
      const partials = createPartials(`${paths.folder}/cluster/partials`);
      const door = createDoor({ address: '::', port: me.port + portOffsets.streams });
      const carriers = createCarriers({ script: paths.carrier });
      const shutDoors = createShutDoors();
      const peers = createPeers({ client, storage, folder, pacer, isEncrypted, carriers, shutDoors });
      leaseStore = openStore(me.storeAddress, me.storeToken, timings[profile].rpcMs);
      const events = createEventLog({ store: opened, node: me.name, clock: hostClock });
      current = createAgent({
        node: me.name,
        alive: { incarnation: hostClock.randomHex(8), version },
        timing: timings[profile],
        store: opened,
        leaseStore,
        clock: hostClock,
        users: createUsers(ownFoldersOf(paths)),
        peers,
        context,
        memory: {
          loadSession: () => context.state.fact('session') as SessionId | null,
          saveSession: (session) => context.state.setFact('session', session),
          loadDocs: () => context.state.docs(),
          saveDocs: (put, gone) => context.state.setDocs(put, gone),
          loadNodes: () => context.state.fact('nodes'),
          saveNodes: (text) => context.state.setFact('nodes', text),
        },
        deadlines: {
          load: () => readDeadlines(paths.deadlines),
          publish: (deadlines) => writeDeadlines(paths.deadlines, deadlines),
        },
        stashMs: () => context.settings().stashMs,
        tell: events.tell,
      });
      const started = current;
      const server = await startPeerServer({
        identity: me,
        address: '::',
        port: me.port,
        handler: Router().use(
          peerRoutes(() => started.answers, partials),
          express.json(),
          api(),
        ),
        join: (body) => admit(opened, me, body, Date.now()),
        isMember: async (name) => started.directory.node(name) !== null || (await opened.get(keys.node(name))) !== null,
        onData: (socket, peer: NodeName) =>
          void receiveSnapshot(
            { copies: () => started, storage, partials, door, carriers, isEncrypted, folder, log },
            socket,
            peer,
          ),
        log,
      });
      store = opened;
      agent = current;
      serveMetrics(() => metricsText(context, started), ended, log);
      log.info(
        { event: 'member.started', node: me.name, cluster: me.clusterId, profile, port: server.port },
        'part of a cluster',
      );
      try {
        await Promise.all([
          current.run(ended),
          events.run(ended),
          keepCertificate(me, ended, (renewed) => {
            identity = renewed;
            server.renew(renewed);
            client.renew(renewed);
          }),
          keepPartials(partials, ended),
        ]);
      } finally {
        door.close();
        await server.close();
      }
    } finally {
      stop.abort();
      agent = null;
      store = null;
      client.close();
      await opened.close();
      await leaseStore?.close();
      await watchdog;
    }
  }

  /** The profile decides on deadlines, so nothing begins before it is known; it never changes in the life of a cluster. */
  async function readProfile(opened: Store, context: Context, signal: AbortSignal): Promise<Profile> {
    for (;;) {
      const known = context.state.fact('profile');
      if (known === 'default' || known === 'fast') return known;
      try {
        const entry = await opened.get(keys.cluster, { fresh: true });
        if (entry !== null) context.state.setFact('profile', decodeCluster(entry.value).profile);
      } catch (error) {
        log.warn(
          { event: 'member.waiting', reason: messageOf(error) },
          'the store must answer once before this node can begin',
        );
      }
      await hostClock.sleep(retryMs / 4, signal);
      signal.throwIfAborted();
    }
  }

  async function keepPartials(partials: Partials, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await partials.sweep(Date.now());
      await hostClock.sleep(partialsMs, signal);
    }
  }

  async function keepCertificate(
    me: NodeIdentity,
    signal: AbortSignal,
    use: (renewed: NodeIdentity) => void,
  ): Promise<void> {
    for (let current = me; !signal.aborted; ) {
      const renewed = await renewCertificate(clusterFolder(paths), current, Date.now()).catch((error: unknown) => {
        log.error({ event: 'member.renewal-failed', reason: messageOf(error) }, 'the certificate could not be renewed');
        return null;
      });
      if (renewed !== null) {
        current = renewed;
        use(renewed);
      }
      await hostClock.sleep(renewalMs, signal);
    }
  }

  return {
    identity: () => identity,
    store: () => store,
    agent: () => agent,
    async joined(next) {
      identity = next;
      changed.ring();
      // The command that made the host a member answers when the membership runs.
      for (let waitedMs = 0; agent === null && waitedMs < joinedMsMax; waitedMs += 100) await sleep(100);
      if (agent === null)
        throw new FlockError(
          'not-ready',
          'this host is a member now, but its part in the cluster does not run yet: see the plugin’s log',
        );
    },
    async load() {
      if (isLoaded) return;
      identity = await loadIdentity(clusterFolder(paths));
      if (
        identity !== null &&
        (await wasRemoved({ openStore: async (address, token) => openStore(address, token) }, identity).catch(
          () => false,
        ))
      )
        log.warn({ event: 'member.removed', node: identity.name }, 'this node was removed from its cluster');
      isLoaded = true;
    },
    async run(context, signal) {
      while (!signal.aborted) {
        const me = identity;
        if (me !== null) {
          await serve(me, context, signal).catch((error: unknown) => {
            if (!signal.aborted) log.error({ event: 'member.failed', reason: messageOf(error) }, 'will be tried again');
          });
          if (!signal.aborted) await hostClock.sleep(retryMs, signal);
        } else await changed.heard(signal);
      }
    },
  };
}

const joinedMsMax = 15_000;

export function clusterFolder(paths: Paths): string {
  return `${paths.folder}/cluster`;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** Wakes whoever waits; rung while nobody waits, the next one does not wait. */
function createBell(): { ring(): void; heard(signal: AbortSignal): Promise<void> } {
  let isRung = false;
  let wake: () => void = () => undefined;
  return {
    ring() {
      isRung = true;
      wake();
    },
    async heard(signal) {
      if (!isRung) {
        await Promise.race([
          aborted(signal),
          new Promise<void>((resolve) => {
            wake = resolve;
          }),
        ]);
      }
      isRung = false;
    },
  };
}
