import { FlockError } from '../../controller/model/errors.ts';
import { decodeMove, isOver, moveKeys } from '../../controller/model/move.ts';
import { type DatasetId, type NodeName, quote } from '../../controller/model/names.ts';
import { decodeWorkload, type WorkloadDoc, workloadKeys } from '../../controller/model/workload.ts';
import type { Store } from '../../controller/store/store.ts';

/** What the store says of the containers that volumes are for. Documents that can't be read keep nothing from anybody. */
export type KeptVolumes = {
  /**
   * Throws `volume-in-use` for one that is idle for a moment only: its container is to run on this node, or is being moved. Nobody gets
   * in between who just mounts it, such as a container that Docker restarts on a node that has come back.
   */
  refuse(id: DatasetId): Promise<void>;
  isMoving(id: DatasetId): Promise<boolean>;
};

export function createKeptVolumes(store: Store, node: NodeName): KeptVolumes {
  async function workloadsOf(id: DatasetId): Promise<readonly WorkloadDoc[]> {
    const entries = await store.list(`${workloadKeys.workloads}/`, { fresh: true });
    return entries.flatMap(({ value }) => {
      // Most are of other volumes, and a document may be large.
      const workload = value.includes(id) ? readable(() => decodeWorkload(value)) : null;
      return workload?.volumes.some((one) => one.id === id) === true ? [workload] : [];
    });
  }

  async function isInMove({ move }: WorkloadDoc): Promise<boolean> {
    if (move === null) return false;
    const entry = await store.get(`${moveKeys.moves}/${move}`, { fresh: true });
    const doc = entry === null ? null : readable(() => decodeMove(entry.value));
    return doc !== null && !isOver(doc);
  }

  return {
    async refuse(id) {
      for (const workload of await workloadsOf(id)) {
        const { name, wanted, volumes, service } = workload;
        const volume = quote(volumes.find((one) => one.id === id)?.name ?? id);
        const facts = { container: name, node: workload.node };
        if (await isInMove(workload))
          throw new FlockError(
            'volume-in-use',
            `volume ${volume} is being moved with the container ${quote(name)}: wait for that to end, or "flockctl moves abort"`,
            facts,
          );
        if (wanted === 'running' && workload.node === node)
          throw new FlockError(
            'volume-in-use',
            `volume ${volume} is kept for the container ${quote(name)}, which is to run on node ${node}: "docker stop ${name}" there, or "flockctl move ${service ?? name} NODE"`,
            facts,
          );
      }
    },
    async isMoving(id) {
      for (const workload of await workloadsOf(id)) if (await isInMove(workload)) return true;
      return false;
    },
  };
}

function readable<T>(decode: () => T): T | null {
  try {
    return decode();
  } catch {
    return null;
  }
}
