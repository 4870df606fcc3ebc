import {
  type DatasetId,
  type HoldTag,
  internalSnapshotPrefix,
  type NodeName,
  parseHoldTag,
  type SnapshotName,
} from '../../controller/model/names.ts';
import type { Storage } from '../storage/storage.ts';

/**
 * What a volume's owner holds: for each node with a copy the snapshot that both have in common, by a tag of that node. A listing of
 * snapshots may be older than a hold that is being set, so what is held is noted here before it is; only what an earlier process or
 * owner has left is read, once.
 */
export type Holds = {
  /** Before the snapshot is sent to the node. */
  take(name: SnapshotName, node: NodeName): Promise<void>;
  /** The node has the snapshot: all others are let go. Takes it where nothing had to be sent. */
  settle(name: SnapshotName, node: NodeName): Promise<void>;
  /** Lets go what is held for any other: nodes that have no copy any more, and by this node when it had one itself. */
  releaseAllBut(nodes: readonly NodeName[], signal: AbortSignal): Promise<void>;
};

export function createHolds(storage: Storage, id: DatasetId): Holds {
  const held = new Map<HoldTag, Set<SnapshotName>>();
  const tagOf = (node: NodeName) => parseHoldTag(`flock.${node}`);
  let isRead = false;

  function namesOf(tag: HoldTag): Set<SnapshotName> {
    const known = held.get(tag) ?? new Set();
    held.set(tag, known);
    return known;
  }

  /** What has been let go meanwhile may be noted once more: to let it go twice does no harm. */
  async function read(): Promise<void> {
    if (isRead) return;
    for (const { name, holds } of await storage.snapshots(id))
      for (const tag of holds) if (tag.startsWith(internalSnapshotPrefix)) namesOf(tag).add(name);
    isRead = true;
  }

  async function take(name: SnapshotName, tag: HoldTag): Promise<void> {
    namesOf(tag).add(name);
    await storage.hold(id, name, tag);
  }

  async function release(name: SnapshotName, tag: HoldTag): Promise<void> {
    await storage.release(id, name, tag);
    held.get(tag)?.delete(name);
  }

  return {
    take: (name, node) => take(name, tagOf(node)),
    async settle(name, node) {
      const tag = tagOf(node);
      await read();
      if (!namesOf(tag).has(name)) await take(name, tag);
      for (const other of [...namesOf(tag)]) if (other !== name) await release(other, tag);
    },
    async releaseAllBut(nodes, signal) {
      const wanted = new Set(nodes.map(tagOf));
      await read();
      for (const [tag, names] of held) {
        if (wanted.has(tag)) continue;
        for (const name of [...names]) {
          if (signal.aborted) return;
          await release(name, tag);
        }
        if (names.size === 0) held.delete(tag);
      }
    },
  };
}
