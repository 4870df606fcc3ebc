import { randomBytes } from 'node:crypto';
import { type ClusterDoc, decodeCluster, keys, type NodeDoc, type StreamFormat } from '../model/cluster.ts';
import { FlockError, hasCode } from '../model/errors.ts';
import type { NodeIdentity } from '../model/identity.ts';
import type { Labels } from '../model/labels.ts';
import type { NodeName } from '../model/names.ts';
import type { Store } from '../store/store.ts';
import { type Authority, issueCertificate, makeAuthority, makeKey } from './ca.ts';
import { forgetIdentity, foundingAuthority, saveIdentity } from './files.ts';
import { requireTimes } from './times.ts';

/** What making and joining a cluster need of the node that does it. */
export type Host = {
  /** Where the identity is kept. */
  readonly folder: string;
  identity(): NodeIdentity | null;
  openStore(address: string, token: string | null): Promise<Store>;
  /** Of the node's pool. */
  format(): StreamFormat;
  /** Of the volumes that the host brings with it. */
  volumeNames(): readonly string[];
  nowMs(): number;
};

export type MemberRequest = {
  readonly name: NodeName;
  readonly address: string;
  readonly port: number;
  readonly labels: Labels;
  readonly storeAddress: string;
  readonly storeToken: string | null;
};

const clusterIdBytes = 8;

/**
 * Makes a cluster with this node in it. Files first, then one transaction, then `node.json`: dying in between, or an answer of the
 * store that got lost, is mended by doing it again. Throws `in-cluster`, `store-unavailable`.
 */
export async function initCluster(
  host: Host,
  request: MemberRequest & { readonly profile: ClusterDoc['profile'] },
): Promise<NodeIdentity> {
  await leaveIfRemoved(host);
  const nowMs = host.nowMs();
  const store = await host.openStore(request.storeAddress, request.storeToken);
  try {
    await requireTimes(store, request.profile);
    const present = await store.get(keys.cluster, { fresh: true });
    const founding = await foundingAuthority(host.folder, () => {
      const clusterId = randomBytes(clusterIdBytes).toString('hex');
      return { clusterId, ...makeAuthority(clusterId, nowMs) };
    });
    if (present !== null && decodeCluster(present.value).id !== founding.clusterId) throw taken(request, present.value);
    const cluster: ClusterDoc = {
      id: founding.clusterId,
      createdAtMs: nowMs,
      profile: request.profile,
      caCertificate: founding.certificate,
    };
    const outcome = await store.transact([
      { kind: 'compare-and-set', key: keys.cluster, value: JSON.stringify(cluster), index: present?.index ?? null },
      // Nobody can have joined before this node has made a token, so a document that is there is from an attempt that died.
      { kind: 'set', key: keys.node(request.name), value: JSON.stringify(nodeDoc(host, request, nowMs)) },
    ]);
    if (outcome.kind === 'conflict') throw taken(request, null);
    const identity = identify(founding.clusterId, founding, makeKey(), request, nowMs);
    await saveIdentity(host.folder, identity);
    return identity;
  } finally {
    await store.close();
  }
}

export function nodeDoc(host: Pick<Host, 'format'>, request: MemberRequest, nowMs: number): NodeDoc {
  const { name, address, port, labels } = request;
  return { name, address, port, labels, cordoned: false, draining: false, format: host.format(), joinedAtMs: nowMs };
}

/** `key`: the node's own. */
export function identify(
  clusterId: string,
  authority: Authority,
  key: string,
  request: MemberRequest,
  nowMs: number,
): NodeIdentity {
  const { name, address, port, storeAddress, storeToken } = request;
  const certificate = issueCertificate(authority, { clusterId, name, address }, key, nowMs);
  const member = { clusterId, name, address, port, storeAddress, storeToken };
  return { ...member, caCertificate: authority.certificate, caKey: authority.key, certificate, key };
}

/** A host that is in a cluster can't be in another, unless the others have removed it; then it forgets the old one. */
export async function leaveIfRemoved(host: Host): Promise<void> {
  const identity = host.identity();
  if (identity === null) return;
  if (!(await wasRemoved(host, identity)))
    throw new FlockError(
      'in-cluster',
      `this host is in cluster ${identity.clusterId} already, as ${identity.name}. To take it out: "docker plugin disable -f flock" here, "flockctl node rm ${identity.name}" on another node, then "docker plugin enable flock" here`,
      { clusterId: identity.clusterId, name: identity.name },
    );
  await forgetIdentity(host.folder);
}

/** The store has the cluster and not this node any more. A store that does not answer proves nothing. */
export async function wasRemoved(host: Pick<Host, 'openStore'>, identity: NodeIdentity): Promise<boolean> {
  const store = await host.openStore(identity.storeAddress, identity.storeToken);
  try {
    const cluster = await store.get(keys.cluster, { fresh: true });
    const node = await store.get(keys.node(identity.name), { fresh: true });
    return cluster !== null && decodeCluster(cluster.value).id === identity.clusterId && node === null;
  } catch (error) {
    if (hasCode(error, 'store-unavailable')) return false;
    throw error;
  } finally {
    await store.close();
  }
}

function taken(request: MemberRequest, cluster: string | null): FlockError {
  const id = cluster === null ? null : decodeCluster(cluster).id;
  return new FlockError(
    'in-cluster',
    `the store at ${request.storeAddress} has a cluster already${id === null ? '' : ` (${id})`}: "flockctl token create" on one of its nodes and "flockctl join" here make this host part of it`,
    { clusterId: id },
  );
}
