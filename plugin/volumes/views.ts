import type { PoolView, SnapshotView, TrashView, VolumeView } from '../../controller/model/api.ts';
import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { formatLabels } from '../../controller/model/labels.ts';
import type { VolumeOptions } from '../../controller/model/options.ts';
import { formatDuration } from '../../controller/model/quantity.ts';
import { formatRetention } from '../../controller/model/retention.ts';
import { ownsName, type VolumeRecord } from '../../controller/model/volume.ts';
import type { Snapshot } from '../storage/storage.ts';
import type { Context } from './context.ts';
import type { TrashedVolume } from './trash.ts';

/** Volumes that people see: those that own their name. */
export function visibleVolumes(context: Pick<Context, 'state'>): readonly VolumeRecord[] {
  return context.state
    .all()
    .filter(ownsName)
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

export function viewVolume(context: Context, record: VolumeRecord, owner: string): VolumeView {
  const usage = context.usage.of(record.id);
  const uses = context.state.uses(record.id);
  return {
    name: record.name,
    id: record.id,
    phase: record.phase.kind,
    owner,
    backend: context.storage.kind,
    createdAtMs: record.createdAtMs,
    mountpoint: uses.length > 0 ? context.storage.mountPath(record.id) : '',
    mounts: uses.reduce((sum, use) => sum + use.count, 0),
    usedBytes: usage?.usedBytes ?? null,
    totalBytes: usage?.totalBytes ?? null,
    sizeBytes: record.options.sizeBytes,
    snapshots: usage?.snapshots ?? null,
    protect: record.options.protect,
    options: chosenOptions(record.options),
  };
}

/** What every node knows of another one's volume. */
export function viewElsewhere(context: Context, doc: VolumeDoc): VolumeView {
  return {
    name: doc.name,
    id: doc.id,
    phase: 'ready',
    owner: doc.owner,
    backend: context.storage.kind,
    createdAtMs: doc.createdAtMs,
    mountpoint: '',
    mounts: 0,
    usedBytes: context.usage.of(doc.id)?.usedBytes ?? null,
    totalBytes: context.usage.of(doc.id)?.totalBytes ?? null,
    sizeBytes: doc.options.sizeBytes,
    snapshots: null,
    protect: doc.options.protect,
    options: chosenOptions(doc.options),
  };
}

/** The options that say something, as a user would write them. */
function chosenOptions(options: VolumeOptions): Record<string, unknown> {
  const { sizeBytes, recordSizeBytes, mode, from, properties, ...others } = options;
  const { remoteReplicas, intervalMs, retain, nodes, locality, maxLossMs, ...plain } = others;
  const all = {
    ...plain,
    size: sizeBytes,
    recordsize: recordSizeBytes,
    mode: mode === null ? null : `0${mode.toString(8)}`,
    from: from === null ? null : from.snapshot === null ? from.name : `${from.name}@${from.snapshot}`,
    'remote-replicas': remoteReplicas,
    interval: intervalMs === null ? null : formatDuration(intervalMs),
    retain: retain === null ? null : formatRetention(retain),
    nodes: nodes?.join(',') ?? null,
    locality: locality === null ? null : formatLabels(locality),
    'max-loss': maxLossMs === null ? null : formatDuration(maxLossMs),
    ...properties,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null && value !== false));
}

export function viewSnapshot(snapshot: Snapshot): SnapshotView {
  return { ...snapshot, holds: [...snapshot.holds] };
}

export function viewTrashed(context: Context, record: TrashedVolume): TrashView {
  const { removedAtMs, expiresAtMs, reason } = record.phase;
  return {
    name: record.name,
    id: record.id,
    removedAtMs,
    expiresAtMs,
    reason,
    totalBytes: context.usage.of(record.id)?.totalBytes ?? null,
  };
}

export async function viewPool(context: Context): Promise<PoolView> {
  const status = await context.storage.pool();
  const visible = context.state.all().filter(ownsName);
  const others = context.state.all().filter((record) => !ownsName(record));
  const bytes = (records: readonly VolumeRecord[]) =>
    records.reduce((sum, record) => sum + (context.usage.of(record.id)?.totalBytes ?? 0), 0);
  return {
    backend: context.storage.kind,
    name: status.name,
    state: status.state,
    message: 'reason' in status ? status.reason : status.warning,
    sizeBytes: 'reason' in status ? null : status.sizeBytes,
    freeBytes: 'reason' in status ? null : status.freeBytes,
    volumes: visible.length,
    volumesBytes: bytes(visible),
    trashed: others.length,
    trashedBytes: bytes(others),
  };
}
