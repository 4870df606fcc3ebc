import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { policyOf } from '../../controller/model/failover.ts';
import type { VolumeOptions } from '../../controller/model/options.ts';
import { formatDuration, formatSize } from '../../controller/model/quantity.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { Node } from '../node.ts';
import { viewVolume } from '../volumes/views.ts';

/** Volumes in the shape that Docker reads. */

/** What Docker reads from List: no Status, which with thousands of volumes would be most of the answer. */
export function brief(node: Node, record: VolumeRecord) {
  const context = node.context();
  const isMounted = context !== null && context.state.uses(record.id).length > 0;
  return {
    Name: record.name,
    Mountpoint: isMounted ? context.storage.mountPath(record.id) : '',
    CreatedAt: new Date(record.createdAtMs).toISOString(),
  };
}

/** A volume that is there for certain, though nothing more can be said of it; its Mount says why. */
export function briefUnreadable(name: string) {
  return { Name: name, Mountpoint: '' };
}

export function briefElsewhere(doc: VolumeDoc) {
  return { Name: doc.name, Mountpoint: '', CreatedAt: new Date(doc.createdAtMs).toISOString() };
}

export function describeElsewhere(doc: VolumeDoc) {
  return {
    ...briefElsewhere(doc),
    Status: {
      owner: doc.owner,
      dataset: doc.id,
      size: doc.options.sizeBytes === null ? 'unlimited' : formatSize(doc.options.sizeBytes),
      replicas: doc.replicas.join(', '),
      failover: describeFailover(doc.options),
      protect: doc.options.protect,
    },
  };
}

export function describe(node: Node, record: VolumeRecord, owner: string) {
  const context = node.context();
  const view = context === null ? null : viewVolume(context, record, owner);
  const size = (bytes: number | null | undefined) =>
    bytes === null || bytes === undefined ? 'unknown' : formatSize(bytes);
  return {
    ...brief(node, record),
    Status: {
      owner,
      backend: view?.backend ?? 'unknown',
      dataset: record.id,
      phase: record.phase.kind,
      size: record.options.sizeBytes === null ? 'unlimited' : formatSize(record.options.sizeBytes),
      used: size(view?.usedBytes),
      usedWithSnapshots: size(view?.totalBytes),
      snapshots: view?.snapshots ?? 'unknown',
      mounts: view?.mounts ?? 0,
      ...(record.epoch > 0
        ? {
            replicas: (context?.ownership.copies(record.id) ?? []).map(describeCopy).join(', '),
            failover: describeFailover(record.options),
          }
        : {}),
      protect: record.options.protect,
    },
  };
}

/** What happens when the owner dies. */
function describeFailover(options: VolumeOptions): string {
  const limit = options.maxLossMs === null ? '' : `, at most ${formatDuration(options.maxLossMs)} lost`;
  return `${policyOf(options)}${limit}`;
}

/** A copy and how far it is behind. */
function describeCopy({ node, lagMs }: { readonly node: string; readonly lagMs: number | null }): string {
  if (lagMs === null) return `${node} (not yet)`;
  return lagMs === 0 ? `${node} (in sync)` : `${node} (${(lagMs / 1000).toFixed(1)} s behind)`;
}
