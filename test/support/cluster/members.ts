import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { path } from '../../../controller/cli/client.ts';
import { copyView, nodeView, snapshotView, stashView, trashView, volumeView } from '../../../controller/model/api.ts';
import { decodeVolume, type VolumeDoc } from '../../../controller/model/cluster.ts';
import type { SnapshotName } from '../../../controller/model/names.ts';
import { parseReplicationSnapshot } from '../../../controller/model/replication.ts';
import { type Timing, timings } from '../../../controller/model/timing.ts';
import { labels } from '../../../packaging/proxy-containers.ts';
import type { Backend } from '../plugin-host.ts';
import { until } from '../until.ts';
import { type Cluster, startCluster } from './cluster.ts';
import type { ClusterHost } from './cluster-host.ts';
import { bootSeconds } from './probes.ts';
import { type Acknowledgement, acknowledged, type Entry, startWriter, type Writer } from './records.ts';
import { entriesBelow } from './store-entries.ts';

/** What tests of a flock cluster see and do, beside its hosts and faults. */

export const timing: Timing = timings.fast;

export type Members = {
  readonly backend: Backend;
  readonly cluster: Cluster;
  /** By number, from 1. */
  readonly n: (number: number) => ClusterHost;
};

/** Of one host each; data centers east, east, west. */
export const memberLabels = [{ dc: 'east' }, { dc: 'east' }, { dc: 'west' }];

/** How long a healed cluster may take until everything is as it should be: sessions anew, stashes, a full copy of small volumes. */
const settledMsMax = 60_000;

/** Runs the same tests on one cluster of a backend, which lives as long as the block; each begins on a healthy one. */
export function onCluster(
  backend: Backend,
  groups: readonly ((members: () => Members) => void)[],
  { proxy = false, title = proxy ? 'the proxy' : 'flock' }: { readonly proxy?: boolean; readonly title?: string } = {},
): void {
  describe(`${title} on three hosts (${backend})`, () => {
    let members: Members | null = null;
    const running = () => {
      if (members === null) throw new Error('the cluster did not start');
      return members;
    };
    before(async () => {
      const cluster = await startCluster({ backend, labels: memberLabels, proxy });
      members = { backend, cluster, n: cluster.host };
    });
    after(async function () {
      // After a long chaos there are many snapshots to let go of.
      this.timeout(disposeMsMax);
      await members?.cluster.dispose();
    });
    afterEach(async function () {
      if (this.currentTest?.state === 'failed') await tellLogs(running(), this.currentTest.err);
      await clean(running()).catch(async (error: Error) => {
        await tellLogs(running(), error);
        throw error;
      });
    });
    for (const group of groups) group(running);
  });
}

const disposeMsMax = 600_000;

/** Ends all faults and containers, and waits for a cluster that is well; its volumes are removed. */
export async function clean(members: Members): Promise<void> {
  const { cluster } = members;
  await cluster.heal();
  await settled(members);
  for (const host of cluster.hosts) {
    const lines = await host.docker('ps', '-a', '--format', `{{.ID}} {{.Label "${labels.program}"}}`);
    const containers = lines.split('\n').flatMap((line) => {
      const [id = '', program = ''] = line.split(' ');
      return id === '' || program !== '' ? [] : [id];
    });
    if (containers.length > 0) await host.docker('rm', '-f', ...containers);
  }
  for (const { name, cordoned, draining } of await nodesOf(cluster.host(1))) {
    if (draining) await cluster.host(1).flockctl('node', 'undrain', name);
    else if (cordoned) await cluster.host(1).flockctl('node', 'uncordon', name);
  }
  for (const { doc } of await volumesOf(members)) {
    if (doc.trashed === null) await members.n(1).flockctl('volume', 'rm', doc.name);
  }
  for (const host of cluster.hosts) {
    const trash = await host.api().get('/v1/trash', z.array(trashView));
    // What can't go yet goes by itself.
    for (const { id } of trash) await host.flockctl('trash', 'purge', id).catch(() => '');
    const stashes = (await stashesOf(host)).filter(({ node }) => node === host.name);
    for (const { id } of stashes) await host.flockctl('stash', 'rm', id).catch(() => '');
  }
}

export type StoredVolume = { readonly doc: VolumeDoc; readonly session: string | null };

/** What the store says of all volumes, asked of the first host whose Consul answers. */
export async function volumesOf({ cluster }: Members): Promise<readonly StoredVolume[]> {
  return (await entriesBelow(cluster, 'volumes')).map(({ value, session }) => ({ doc: decodeVolume(value), session }));
}

export async function volumeOf(members: Members, name: string): Promise<StoredVolume> {
  const found = (await volumesOf(members)).find(({ doc }) => doc.name === name && doc.trashed === null);
  if (found === undefined) throw new Error(`the store has no volume ${name}`);
  return found;
}

export const copiesOf = (host: ClusterHost) => host.api().get('/v1/copies', z.array(copyView));
export const stashesOf = (host: ClusterHost) => host.api().get('/v1/stashes', z.array(stashView));
export const nodesOf = (host: ClusterHost) => host.api().get('/v1/nodes', z.array(nodeView));
export const listed = (host: ClusterHost) => host.api().get('/v1/volumes', z.array(volumeView));
export const snapshotsOf = (host: ClusterHost, volume: string) =>
  host.api().get(path`/v1/volumes/${volume}/snapshots`, z.array(snapshotView));

/** Of one volume, as its owner sees them now. */
export async function copyOf(host: ClusterHost, volume: string, node: string) {
  return (await copiesOf(host)).find((copy) => copy.volume === volume && copy.node === node) ?? null;
}

/**
 * Until every node is up and every volume has one owner that is alive and has it locked, and as many copies as its document names,
 * each with what the volume has (or, where it is being written, not older than a few seconds) and without a problem.
 */
export async function settled(members: Members, msMax = settledMsMax): Promise<void> {
  let last = 'nothing was seen';
  await until(`the cluster has settled`, msMax, async () => {
    const reason = await unsettled(members).catch((error: unknown) =>
      error instanceof Error ? error.message : String(error),
    );
    if (reason === null) return true;
    last = reason;
    return undefined;
  }).catch(async (error: unknown) => {
    throw new Error(`${String(error)}: ${last}`);
  });
}

const settledLagMsMax = 5_000;

async function unsettled(members: Members): Promise<string | null> {
  const { cluster } = members;
  const down = (await nodesOf(cluster.host(1))).filter(({ alive }) => !alive).map(({ name }) => name);
  if (down.length > 0) return `down: ${down.join(', ')}`;
  const views = await Promise.all(cluster.hosts.map(listed));
  const copies = await copiesOf(cluster.host(1));
  for (const { doc, session } of await volumesOf(members)) {
    if (doc.trashed !== null) continue;
    if (session === null) return `${doc.name} is not locked`;
    for (const [index, view] of views.entries()) {
      const shown = view.filter(({ name }) => name === doc.name);
      if (shown.length !== 1 || shown[0]?.owner !== doc.owner)
        return `n${index + 1} shows ${JSON.stringify(shown.map(({ id, owner, phase }) => ({ id, owner, phase })))} of ${doc.name}, owned by ${doc.owner}`;
    }
    for (const node of doc.replicas) {
      const copy = copies.find(
        ({ volume, owner, node: at }) => volume === doc.name && owner === doc.owner && at === node,
      );
      const isGood = copy?.problem === null && copy.lagMs !== null && copy.lagMs <= settledLagMsMax;
      if (!isGood) return `the copy of ${doc.name} (owner ${doc.owner}) on ${node}: ${JSON.stringify(copy ?? null)}`;
    }
  }
  return null;
}

/**
 * A volume with copies, and a container on the host that writes to it; answers when records are acknowledged and everybody has some.
 * It changes hands when the test says so; one whose owner is to be followed by itself is given other options.
 */
export async function startReplicatedWriter(
  host: ClusterHost,
  writer: Writer,
  options: readonly string[] = ['replicas=1', 'remote-replicas=1', 'failover=manual'],
): Promise<void> {
  const count = options.reduce((sum, option) => sum + Number(/replicas=(\d)/.exec(option)?.[1] ?? 0), 0);
  await createVolume(host, writer.volume, options);
  await startWriter(host, writer);
  await until(`${writer.volume} has ${count} copies`, 120_000, async () => {
    const copies = (await copiesOf(host)).filter(({ volume }) => volume === writer.volume);
    return copies.length === count && copies.every(({ snapshot }) => snapshot !== null) ? true : undefined;
  });
  await acknowledgedAfter(host, writer, await bootSeconds());
}

export async function createVolume(host: ClusterHost, name: string, options: readonly string[]): Promise<void> {
  await host.docker('volume', 'create', '-d', 'flock', ...options.flatMap((option) => ['-o', option]), name);
}

/** Until the writer has acknowledged a record of after this time; answers all. */
export function acknowledgedAfter(host: ClusterHost, writer: Writer, seconds: number, msMax = 20_000) {
  return until(`a record of ${writer.container} on ${host.name} after ${seconds}`, msMax, async () => {
    const entries = await acknowledged(host, writer);
    return entries.some((entry) => entry.bootSeconds > seconds) ? entries : undefined;
  });
}

/** The longest time without an acknowledgement, in seconds, from `from` to `to` (boot clock). */
export function longestGap(entries: readonly Entry[], from: number, to: number): number {
  const times = [from, ...entries.map(({ bootSeconds: at }) => at).filter((at) => at > from && at < to), to];
  return times.slice(1).reduce((longest, at, index) => Math.max(longest, at - (times[index] ?? at)), 0);
}

/** `flockctl failover`, again and again until what must be waited for is over. Answers how long it took, in ms. */
export async function failover(host: ClusterHost, volume: string, msMax = 40_000): Promise<number> {
  const startMs = performance.now();
  let last = '';
  await until(`failover of ${volume} to ${host.name}`, msMax, async () => {
    try {
      return await host.flockctl('failover', volume, host.name, '--yes');
    } catch (error) {
      last = error instanceof Error ? error.message : String(error);
      await sleep(200);
      return undefined;
    }
  }).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${last}`);
  });
  return Math.round(performance.now() - startMs);
}

/** Has the one of two hosts that has the newest copy take a volume over: it is refused to the other one. Answers which it was. */
export async function failoverToNewest(
  [first, second]: readonly [ClusterHost, ClusterHost],
  volume: string,
): Promise<ClusterHost> {
  const isOlder = (error: Error) => error.message.includes(`node ${second.name} has a newer copy`);
  return await until(`failover of ${volume}`, 40_000, async () => {
    try {
      await first.flockctl('failover', volume, first.name, '--yes');
      return first;
    } catch (error) {
      if (!(error instanceof Error && isOlder(error))) return undefined;
      await failover(second, volume);
      return second;
    }
  });
}

/**
 * The acknowledgements that a copy must have which ends with this snapshot: whatever was durable before it was taken (a writer may be
 * frozen for seconds between a record's own time and its write). The snapshot's name has the wall clock's time from just before.
 */
export async function acknowledgedBefore<Heard extends Acknowledgement>(
  entries: readonly Heard[],
  snapshot: string,
): Promise<readonly Heard[]> {
  const taken = parseReplicationSnapshot(snapshot as SnapshotName);
  if (taken === null) throw new Error(`${snapshot} was not made by replication`);
  const takenSeconds = (await bootSeconds()) - (Date.now() - taken.timeMs) / 1000;
  // The two clocks are read one after the other, and the boot clock shows hundredths of a second.
  return entries.filter(({ durableSeconds: at }) => at < takenSeconds - 0.05);
}

/** Cuts the host off from all others. */
export function isolate({ cluster }: Members, host: ClusterHost) {
  return cluster.network.partition([host.number], others(cluster, host));
}

export function others(cluster: Cluster, host: ClusterHost): readonly number[] {
  return cluster.hosts.map(({ number }) => number).filter((number) => number !== host.number);
}

/** A host whose node was removed, and that is up again, is a node again. `at`: one that is. */
export async function joinAnew(at: ClusterHost, host: ClusterHost): Promise<void> {
  const { token } = (await at.json('token', 'create')) as { readonly token: string };
  const labels = Object.entries(memberLabels[host.number - 1] ?? {});
  const self = [
    ...['--name', host.name, '--address', host.address, '--store', 'http://127.0.0.1:8500'],
    ...labels.flatMap(([label, value]) => ['--label', `${label}=${value}`]),
  ];
  await host.flockctl('join', at.address, token, ...self);
}

/** Puts random bytes into a file of the volume. */
export function fill(host: ClusterHost, volume: string, mebibytes: number, file = 'blob'): Promise<string> {
  const write = `dd if=/dev/urandom of=/data/${file} bs=1M count=${mebibytes} 2>/dev/null`;
  return host.sh(volume, `${write} && sync && md5sum < /data/${file}`);
}

export const sumOf = (host: ClusterHost, volume: string, file = 'blob') => host.sh(volume, `md5sum < /data/${file}`);

/** What the plugin of a host has said since a time (boot clock, seconds), one JSON object each. */
export async function saidBy(host: ClusterHost, sinceWallMs = 0): Promise<readonly Said[]> {
  const text = await host.pluginLog();
  return text.split('\n').flatMap((line) => {
    // dockerd quotes what a plugin writes.
    const quoted = /msg="((?:[^"\\]|\\.)*)"/.exec(line)?.[1];
    if (quoted === undefined) return [];
    try {
      const said = JSON.parse(JSON.parse(`"${quoted}"`)) as Said;
      return Date.parse(said.time) >= sinceWallMs ? [said] : [];
    } catch {
      return [];
    }
  });
}

export type Said = { readonly time: string; readonly event: string; readonly level: number | string } & Readonly<
  Record<string, unknown>
>;

const toldMax = 25;

/** With the reason, which is told at the very end otherwise. */
async function tellLogs({ cluster }: Members, error: Error | undefined): Promise<void> {
  console.log(error?.message);
  for (const host of cluster.hosts) {
    const said = (await saidBy(host)).filter(({ event }) => event !== 'docker.call').slice(-toldMax);
    console.log(`--- ${host.name}`);
    for (const { time, level: _level, event, ...facts } of said)
      console.log(time.slice(11), event, JSON.stringify(facts).slice(0, 220));
    for (const line of await containersOf(host)) console.log(line.slice(0, 240));
  }
}

/** As its Docker shows them, and what flock's own ones said last. Empty of a host that does not answer. */
async function containersOf(host: ClusterHost): Promise<readonly string[]> {
  const shown = await host.docker('ps', '-a', '--format', '{{.Names}} {{.Image}} {{.Status}}').catch(() => '');
  const said = await Promise.all(
    ['flock-controller', 'flock-proxy'].map((name) =>
      host.docker('logs', '--tail', String(toldMax), name).catch(() => ''),
    ),
  );
  return [...shown.split('\n'), ...said.flatMap((text) => text.split('\n'))].filter((line) => line !== '');
}
