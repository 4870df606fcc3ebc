import { z } from 'zod';
import { type ClusterDoc, decodeCluster, decodeNode, keys, type NodeDoc } from '../model/cluster.ts';
import { FlockError, messageOf } from '../model/errors.ts';
import {
  formatPeerAddress,
  type NodeIdentity,
  type PeerAddress,
  parseLabelWords,
  parsePeerAddress,
} from '../model/identity.ts';
import { parseNodeName } from '../model/names.ts';
import type { Operation, Store } from '../store/store.ts';
import { fingerprintOf, isKeyOf, keyFingerprintOf, makeKey } from './ca.ts';
import { listBelow } from './entries.ts';
import { joiningKey, saveIdentity } from './files.ts';
import { type Host, identify, leaveIfRemoved, type MemberRequest, nodeDoc } from './founding.ts';
import { requireTimes } from './times.ts';
import { parseToken, refused, useToken } from './tokens.ts';

/** What a joining host tells a member, on a connection on which it has proved the member and nothing is known of the host. */
const askBody = z.strictObject({
  secret: z.string().regex(/^[0-9a-f]{32}$/),
  keyFingerprint: z.string().regex(/^[0-9a-f]{64}$/),
  node: z.strictObject({
    name: z.string().transform(parseNodeName),
    address: z.string(),
    port: z.int().min(1).max(65_535),
    labels: z.record(z.string(), z.string()),
    format: z.enum(['zfs', 'btrfs']),
  }),
});
export type AskBody = z.input<typeof askBody>;

const askAnswer = z.object({ caKey: z.string() });
export type AskAnswer = z.infer<typeof askAnswer>;

/** Sends the question to `POST /v1/join` of a member that has a certificate of this authority. */
export type Ask = (member: PeerAddress, caCertificate: string, body: AskBody) => Promise<unknown>;

/**
 * Makes this host part of the cluster that the token is for. The token tells which cluster its own way to the store must lead to;
 * only then a member is asked, over TLS that proves that it is of this cluster. A join that died is mended by doing it again with the
 * same token. Throws `in-cluster`, `no-cluster`, `token-invalid`, `node-exists`, `node-unreachable`, `store-unavailable`.
 */
export async function joinCluster(
  host: Host,
  request: MemberRequest & { readonly member: PeerAddress; readonly token: string },
  ask: Ask,
): Promise<NodeIdentity> {
  const token = parseToken(request.token);
  await leaveIfRemoved(host);
  const cluster = await clusterOf(host, request);
  if (fingerprintOf(cluster.caCertificate) !== token.caFingerprint)
    throw new FlockError(
      'token-invalid',
      `the join token is for another cluster than the one in the store at ${request.storeAddress} (${cluster.id}): name that cluster's store with --store, or take a token of this cluster`,
    );
  const key = await joiningKey(host.folder, makeKey);
  const { name, address, port, labels, format } = nodeDoc(host, request, host.nowMs());
  const answer = askAnswer.safeParse(
    await ask(request.member, cluster.caCertificate, {
      secret: token.secret,
      keyFingerprint: keyFingerprintOf(key),
      node: { name, address, port, labels, format },
    }),
  );
  if (!answer.success || !isKeyOf(cluster.caCertificate, answer.data.caKey))
    throw new FlockError(
      'node-unreachable',
      `${formatPeerAddress(request.member)} gave an answer that is not understood: do both nodes run one version of flock?`,
    );
  const authority = { certificate: cluster.caCertificate, key: answer.data.caKey };
  const identity = identify(cluster.id, authority, key, request, host.nowMs());
  await saveIdentity(host.folder, identity);
  return identity;
}

async function clusterOf(host: Host, request: MemberRequest): Promise<ClusterDoc> {
  const store = await host.openStore(request.storeAddress, request.storeToken);
  try {
    const entry = await store.get(keys.cluster, { fresh: true });
    if (entry !== null) {
      const cluster = decodeCluster(entry.value);
      await requireTimes(store, cluster.profile);
      await requireOtherNames(store, host.volumeNames());
      return cluster;
    }
  } finally {
    await store.close();
  }
  throw new FlockError(
    'no-cluster',
    `the store at ${request.storeAddress} has no cluster: is this host's Consul part of the cluster's ("consul members")? --store names another one`,
  );
}

/** Two volumes of one name can't be told apart; which one is to have another is for people to say. */
async function requireOtherNames(store: Store, own: readonly string[]): Promise<void> {
  const taken = new Set((await listBelow(store, keys.names)).map(({ key }) => key.slice(keys.names.length + 1)));
  const twice = own.filter((name) => taken.has(name));
  if (twice.length === 0) return;
  throw new FlockError(
    'volume-exists',
    `the cluster has volumes of these names already: ${twice.slice(0, namesShownMax).join(', ')}${twice.length > namesShownMax ? ` and ${twice.length - namesShownMax} more` : ''}. Give this host's own other ones first: "docker volume rm NAME", then "flockctl trash restore NAME NEW_NAME"`,
    { names: twice },
  );
}

const namesShownMax = 10;

/** The member's side. Token and new node are one transaction: a use is never lost, and never taken twice. */
export async function admit(
  store: Store,
  identity: Pick<NodeIdentity, 'caKey' | 'clusterId'>,
  body: unknown,
  nowMs: number,
): Promise<AskAnswer> {
  const { secret, keyFingerprint, node } = parseAsk(body);
  const doc: NodeDoc = { ...node, cordoned: false, draining: false, joinedAtMs: nowMs };
  const use = { secret, node: node.name, keyFingerprint };
  if ((await useToken(store, use, nowMs, () => additions(store, doc))) === 'repeated') await admitAgain(store, doc);
  return { caKey: identity.caKey };
}

/** It may have other words for itself now; but once removed it stays out. */
async function admitAgain(store: Store, doc: NodeDoc): Promise<void> {
  const key = keys.node(doc.name);
  const entry = await store.get(key, { fresh: true });
  if (entry === null) throw refused('was used by this node, which has been removed since');
  const value = JSON.stringify(doc);
  const outcome = await store.transact([{ kind: 'compare-and-set', key, value, index: entry.index }]);
  if (outcome.kind === 'conflict')
    throw new FlockError('store-unavailable', `node ${doc.name} is being changed at this moment: try again`);
}

async function additions(store: Store, doc: NodeDoc): Promise<readonly Operation[]> {
  const nodes = await listBelow(store, keys.nodes);
  const others = nodes.map((entry) => decodeNode(entry.value));
  if (others.some((other) => other.name === doc.name))
    throw new FlockError(
      'node-exists',
      `the cluster has a node ${doc.name} already: choose another --name, or, if this host was ${doc.name} before, remove that one with "flockctl node rm ${doc.name}"`,
    );
  const neighbour = others.find((other) => other.address === doc.address && other.port === doc.port);
  if (neighbour !== undefined)
    throw new FlockError(
      'node-exists',
      `node ${neighbour.name} has the address ${formatPeerAddress(doc)} already: choose another --address, or remove that node with "flockctl node rm ${neighbour.name}"`,
    );
  return [{ kind: 'compare-and-set', key: keys.node(doc.name), value: JSON.stringify(doc), index: null }];
}

function parseAsk(body: unknown): z.infer<typeof askBody> {
  const parsed = askBody.safeParse(body);
  if (!parsed.success) throw new FlockError('invalid-request', `the request is malformed: ${messageOf(parsed.error)}`);
  const { node } = parsed.data;
  const labels = parseLabelWords(Object.entries(node.labels).map(([label, value]) => `${label}=${value}`));
  return { ...parsed.data, node: { ...node, ...parsePeerAddress(formatPeerAddress(node)), labels } };
}
