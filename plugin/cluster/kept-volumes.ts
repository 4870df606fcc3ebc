import { FlockError } from '../../controller/model/errors.ts';
import { decodeMove, isOver, moveKeys } from '../../controller/model/move.ts';
import { type DatasetId, type NodeName, quote } from '../../controller/model/names.ts';
import { decodeWorkload, type WorkloadDoc, workloadKeys } from '../../controller/model/workload.ts';
import type { Store } from '../../controller/store/store.ts';

/**
 * Volumes that are idle for a moment only: of a container that is to run on this node, or that is being moved. Nobody gets in between
 * who just mounts them, such as a container that Docker restarts on a node that has come back. Throws `volume-in-use`.
 */
export function createRefuseKept(store: Store, node: NodeName): (id: DatasetId) => Promise<void> {
  async function isMoving({ move }: WorkloadDoc): Promise<boolean> {
    if (move === null) return false;
    const entry = await store.get(`${moveKeys.moves}/${move}`, { fresh: true });
    const doc = entry === null ? null : readable(() => decodeMove(entry.value));
    return doc !== null && !isOver(doc);
  }

  return async (id) => {
    const entries = await store.list(`${workloadKeys.workloads}/`, { fresh: true });
    for (const { value } of entries) {
      // Most are of other volumes, and a document may be large.
      const workload = value.includes(id) ? readable(() => decodeWorkload(value)) : null;
      const volume = workload?.volumes.find((one) => one.id === id);
      if (workload == null || volume === undefined) continue;
      const { name, wanted } = workload;
      const facts = { container: name, node: workload.node };
      if (await isMoving(workload))
        throw new FlockError(
          'volume-in-use',
          `volume ${quote(volume.name)} is being moved with the container ${quote(name)}: wait for that to end, or "flockctl move abort"`,
          facts,
        );
      if (wanted === 'running' && workload.node === node)
        throw new FlockError(
          'volume-in-use',
          `volume ${quote(volume.name)} is kept for the container ${quote(name)}, which is to run on node ${node}: "docker stop ${name}" there, or "flockctl move ${workload.service ?? name} NODE"`,
          facts,
        );
    }
  };
}

/** What can't be read keeps nothing from anybody. */
function readable<T>(decode: () => T): T | null {
  try {
    return decode();
  } catch {
    return null;
  }
}
