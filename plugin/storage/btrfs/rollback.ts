import { rename, rm } from 'node:fs/promises';
import { FlockError } from '../../../controller/model/errors.ts';
import type { DatasetId, SnapshotName } from '../../../controller/model/names.ts';
import type { DatasetOptions } from '../storage.ts';
import { refuseQuotaBelow } from './datasets.ts';
import { nullIfMissing } from './errors.ts';
import { type Host, makeFolder } from './host.ts';
import { refuseIfMounted } from './mounts.ts';
import { requireSnapshot, savedOf } from './snapshots.ts';

export type Rollback = {
  readonly id: DatasetId;
  readonly name: SnapshotName;
  readonly aside: DatasetId;
  readonly options: DatasetOptions;
};

/**
 * Three steps, each of which may be repeated. While `id` is missing and `aside` is there the work is half done; the last step
 * makes `id` appear again, complete.
 */
export const rollbackSteps = {
  async keepAside(host: Host, { id, aside }: Pick<Rollback, 'id' | 'aside'>): Promise<void> {
    const stamp = await host.readStamp(id);
    if (stamp !== null) await host.writeStamp(aside, stamp);
    await rename(host.layout.live(id), host.layout.live(aside));
    await host.sync();
  },
  async moveYounger(host: Host, { id, name, aside }: Rollback): Promise<void> {
    const saved = await savedOf(host, id);
    const at = saved.findIndex((snapshot) => snapshot.name === name);
    if (at < 0) throw new FlockError('snapshot-not-found', `the dataset ${id} has no snapshot ${name}`, { id, name });
    const younger = saved.slice(at + 1);
    if (younger.length > 0) await makeFolder(host.layout.snapshotsOf(aside));
    for (const snapshot of younger)
      await rename(host.layout.snapshotFolder(id, snapshot.name), host.layout.snapshotFolder(aside, snapshot.name));
  },
  async makeLive(host: Host, { id, name, options }: Rollback): Promise<void> {
    await host.makeLive(id, host.layout.snapshot(id, name), options);
  },
};

export async function rollbackDataset(host: Host, rollback: Rollback): Promise<void> {
  const { id, name, aside } = rollback;
  const isAside = await host.isLive(aside);
  if (await host.isLive(id)) {
    // Done before; aside could not be there otherwise, as its id is never used twice.
    if (isAside) return await host.sync();
    await requireSnapshot(host, id, name);
    await refuseIfMounted(host, id);
    await refuseQuotaBelow(host, id, host.layout.snapshot(id, name), rollback.options.quotaBytes);
    await rollbackSteps.keepAside(host, rollback);
  } else if (!isAside) await host.requireLive(id);
  await rollbackSteps.moveYounger(host, rollback);
  await rollbackSteps.makeLive(host, rollback);
}

/** The same first step; then the snapshots, whose folder is moved whole. Subvolumes in the live one go with it. */
export async function renameDataset(host: Host, id: DatasetId, to: DatasetId): Promise<void> {
  const { layout } = host;
  const isThere = await host.isLive(to);
  if (await host.isLive(id)) {
    if (isThere) return await host.sync();
    await refuseIfMounted(host, id);
    await rollbackSteps.keepAside(host, { id, aside: to });
  } else if (!isThere) return;
  await nullIfMissing(rename(layout.snapshotsOf(id), layout.snapshotsOf(to)));
  await nullIfMissing(rename(layout.made(id), layout.made(to)));
  await rm(layout.stamp(id), { force: true });
  await host.sync();
}
