/**
 * The contract of plugin/storage/storage.ts as tests. A backend passes it by calling `storageContract` once:
 *
 *     storageContract('btrfs', async () => ({ storage: createBtrfs(config, createCommands()), dispose }));
 *
 * `make` is called twice, for two hosts. It gives a storage whose pool is NOT made yet: the suite makes it. `dispose` removes
 * everything, also what a failed test left mounted.
 */
import { cloneContract } from './storage/clones.ts';
import { type Bench, type Context, type Made, openBench, type Traits } from './storage/context.ts';
import { damageContract } from './storage/damage.ts';
import { datasetContract } from './storage/datasets.ts';
import { markContract } from './storage/marks.ts';
import { mountContract } from './storage/mounts.ts';
import { poolContract } from './storage/pool.ts';
import { quotaContract } from './storage/quotas.ts';
import { renameContract } from './storage/renames.ts';
import { replicaLifeContract } from './storage/replica-life.ts';
import { replicationContract } from './storage/replication.ts';
import { rollbackContract } from './storage/rollback.ts';
import { snapshotContract } from './storage/snapshots.ts';
import { transportContract } from './storage/transport.ts';

export type { Content, Made, Traits } from './storage/context.ts';

export function storageContract(name: string, make: () => Promise<Made>, traits: Traits = {}): void {
  describe(`storage contract: ${name}`, function () {
    this.timeout(traits.timeoutMs ?? 60_000);
    let here: Bench | undefined;
    let there: Bench | undefined;

    before('make two pools', async () => {
      here = await openBench(await make(), traits);
      there = await openBench(await make(), traits);
    });
    after('remove them', async () => {
      await there?.dispose();
      await here?.dispose();
    });

    const context: Context = {
      traits,
      here: () => opened(here),
      there: () => opened(there),
      test: (title, work) => {
        const reason = traits.skip?.[title];
        if (reason === undefined) it(title, work);
        else it.skip(`${title} (${reason})`);
      },
    };
    describe('pool', () => poolContract(context));
    describe('datasets', () => datasetContract(context));
    describe('quotas', () => quotaContract(context));
    describe('mounts', () => mountContract(context));
    describe('snapshots', () => snapshotContract(context));
    describe('rollback', () => rollbackContract(context));
    describe('renaming', () => renameContract(context));
    describe('clones', () => cloneContract(context));
    describe('replication', () => replicationContract(context));
    describe('content marks', () => markContract(context));
    describe('life of a replica', () => replicaLifeContract(context));
    describe('streams on their way', () => transportContract(context));
    describe('damaged and cut streams', () => damageContract(context));
  });
}

function opened(bench: Bench | undefined): Bench {
  if (bench === undefined) throw new Error('the pool was not made');
  return bench;
}
