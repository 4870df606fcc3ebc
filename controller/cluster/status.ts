import type { StatusView } from '../model/api.ts';
import { decodeCluster, decodeNode, decodeVolume, keys, type VolumeDoc } from '../model/cluster.ts';
import { FlockError, hasCode } from '../model/errors.ts';
import type { NodeIdentity } from '../model/identity.ts';
import type { Entry, Store } from '../store/store.ts';
import { byName, isLocked, listBelow } from './entries.ts';

type Member = { readonly identity: NodeIdentity; readonly store: Store };

/**
 * How the cluster is, in figures. An unreachable store is part of the answer, not a failure; null: this host is in no cluster.
 * `copiesWanted`: of a volume, without its owner's.
 */
export async function viewStatus(
  member: Member | null,
  copiesWanted: (volume: VolumeDoc) => number = ({ replicas }) => replicas.length,
): Promise<StatusView> {
  if (member === null) return { cluster: null, node: null, store: null, nodes: null, volumes: null };
  const { identity, store } = member;
  const node = { name: identity.name, address: identity.address, port: identity.port };
  const way = { kind: store.kind, address: identity.storeAddress };
  try {
    const cluster = await store.get(keys.cluster, { fresh: true });
    if (cluster === null)
      throw new FlockError(
        'no-cluster',
        `the store at ${identity.storeAddress} has lost the cluster: restore it from a snapshot ("consul snapshot restore")`,
      );
    const { id, profile } = decodeCluster(cluster.value);
    const [nodes = [], alives = [], volumes = []] = await Promise.all(
      [keys.nodes, keys.alives, keys.volumes].map((key) => listBelow(store, key)),
    );
    return {
      cluster: { id, profile },
      node,
      store: { ...way, reachable: true, message: null },
      ...figures(nodes, alives, volumes, copiesWanted),
    };
  } catch (error) {
    if (!hasCode(error, 'store-unavailable')) throw error;
    return {
      cluster: { id: identity.clusterId, profile: null },
      node,
      store: { ...way, reachable: false, message: error.message },
      nodes: null,
      volumes: null,
    };
  }
}

function figures(
  nodes: readonly Entry[],
  alives: readonly Entry[],
  volumes: readonly Entry[],
  copiesWanted: (volume: VolumeDoc) => number,
): Pick<StatusView, 'nodes' | 'volumes'> {
  const alive = byName(alives);
  const up = new Set<string>();
  const down: string[] = [];
  for (const entry of nodes) {
    const { name } = decodeNode(entry.value);
    if (isLocked(alive.get(name))) up.add(name);
    else down.push(name);
  }
  const docs = volumes.map((entry) => decodeVolume(entry.value)).filter(({ trashed }) => trashed === null);
  const copies = (volume: VolumeDoc) => volume.replicas.filter((name) => up.has(name)).length;
  return {
    nodes: { total: nodes.length, up: up.size, down },
    volumes: {
      total: docs.length,
      underReplicated: docs.filter((volume) => copies(volume) < copiesWanted(volume)).map(({ name }) => name),
      ownerDead: docs.filter(({ owner }) => !up.has(owner)).map(({ name }) => name),
    },
  };
}
