import { isLocked } from '../../controller/cluster/entries.ts';
import { decodeNode, keys } from '../../controller/model/cluster.ts';
import type { PeerAddress } from '../../controller/model/identity.ts';
import type { NodeName } from '../../controller/model/names.ts';
import type { Entry } from '../../controller/store/store.ts';
import type { Documents } from '../model/collect.ts';
import type { Part } from './collection.ts';
import type { Reach } from './reach.ts';
import { nodeOfKey } from './writes.ts';

/** Of a node's document; of one that can't be read nothing is known. */
function readNode(text: string): { readonly isPoolLost: boolean; readonly at: PeerAddress | null } {
  try {
    const { poolLost, address, port } = decodeNode(text);
    return { isPoolLost: poolLost === true, at: { address, port } };
  } catch {
    return { isPoolLost: false, at: null };
  }
}

/** Who is in the cluster is in the keys, so that a node whose document can't be read here counts all the same. */
export function createMembers(reach: Reach) {
  const namesOf = (below: string, entries: readonly Entry[]) =>
    entries.flatMap(({ key }) => nodeOfKey(key, below) ?? []);
  let nodes: ReadonlyMap<NodeName, ReturnType<typeof readNode>> = new Map();
  let alive: ReadonlySet<string> = new Set();

  function seen(): NonNullable<Documents['members']> {
    return new Map(
      [...nodes].map(([name, { isPoolLost }]) => [
        name,
        {
          alive: alive.has(name),
          ...(isPoolLost ? { poolLost: true } : {}),
          ...(reach.answers(name) ? { reached: true } : {}),
        },
      ]),
    );
  }

  return {
    seen,
    parts(put: (members: ReturnType<typeof seen>) => void): readonly Part[] {
      const combine = () => {
        reach.follow(
          new Map([...nodes].flatMap(([name, { at }]) => (at === null || alive.has(name) ? [] : [[name, at]]))),
        );
        put(seen());
        return [];
      };
      return [
        {
          below: keys.nodes,
          take(entries) {
            nodes = new Map(
              entries.flatMap((entry) =>
                namesOf(keys.nodes, [entry]).map((name) => [name, readNode(entry.value)] as const),
              ),
            );
            return combine();
          },
        },
        {
          below: keys.alives,
          take(entries) {
            alive = new Set(namesOf(keys.alives, entries.filter(isLocked)));
            return combine();
          },
        },
      ];
    },
  };
}
