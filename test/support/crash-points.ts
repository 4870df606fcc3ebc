import assert from 'node:assert/strict';
import { type DatasetId, parseVolumeName } from '../../controller/model/names.ts';
import type { Commands } from '../../plugin/exec.ts';
import type { State } from '../../plugin/state.ts';
import type { Storage } from '../../plugin/storage/storage.ts';
import type { Context } from '../../plugin/volumes/context.ts';
import { createVolume } from '../../plugin/volumes/create.ts';
import { recover } from '../../plugin/volumes/recover.ts';
import { createSnapshot, rollbackVolume } from '../../plugin/volumes/snapshots.ts';
import { removeVolume, sweepTrash } from '../../plugin/volumes/trash.ts';
import { createFixture, never, type PluginFixture, type Wrap } from './plugin-context.ts';

/**
 * Lets a process die between any two of its steps: after so many steps every further one fails, as if it never happened, until
 * the process is started again. A step is a storage command before it runs, or a transaction before it is committed.
 */
export type Fuse = {
  /** Counts one step; throws when the process is dead. */
  step(what: string): void;
  /** The process dies at the step with this number, counted from 0; null: never. */
  arm(diesAt: number | null): void;
  /** Where it died, or null. */
  diedAt(): string | null;
};

export function createFuse(): Fuse {
  let left: number | null = null;
  let died: string | null = null;
  return {
    step(what) {
      if (left === null) return;
      if (left === 0) {
        died ??= what;
        throw new Error(`the process died before: ${what}`);
      }
      left -= 1;
    },
    arm(diesAt) {
      left = diesAt;
      died = null;
    },
    diedAt: () => died,
  };
}

export function commandsWithFuse(commands: Commands, fuse: Fuse): Commands {
  return {
    run(file, args, options) {
      fuse.step([file, ...args].join(' '));
      return commands.run(file, args, options);
    },
    stream(file, args, stdio, signal) {
      fuse.step([file, ...args].join(' '));
      return commands.stream(file, args, stdio, signal);
    },
  };
}

export function stateWithFuse(state: State, fuse: Fuse): State {
  return {
    ...state,
    commit(changes) {
      fuse.step('commit');
      state.commit(changes);
    },
    setUses(id, uses) {
      fuse.step('setUses');
      state.setUses(id, uses);
    },
  };
}

/** For backends without commands: the process dies before or after each call. */
export function storageWithFuse<S extends Storage>(storage: S, fuse: Fuse): S {
  return new Proxy(storage, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== 'function' || name === 'isMountOf' || name === 'mountPath') return value;
      return async (...args: readonly unknown[]) => {
        fuse.step(`before ${String(name)}`);
        const result: unknown = await value.apply(target, args);
        fuse.step(`after ${String(name)}`);
        return result;
      };
    },
  });
}

export type CrashHost<S extends Storage> = {
  /** A storage on the same pool each time; its commands burn the fuse. */
  makeStorage(fuse: Fuse): Promise<S>;
  wrapStorage?: (storage: S, fuse: Fuse) => S;
  dispose?: () => Promise<void>;
  readonly write: (storage: S, context: Context, volume: string, text: string) => Promise<void>;
  readonly read: (storage: S, context: Context, volume: string) => Promise<string | null>;
};

const stepsMax = 200;

/** Kills the process at every step (or every second, third ... one) of each operation, starts it again, and checks that nothing is left half done and nothing is lost. */
export function crashSuite<S extends Storage>(makeHost: () => Promise<CrashHost<S>>, every = 1): void {
  let host: CrashHost<S>;
  let fixture: PluginFixture<S>;
  const fuse = createFuse();

  before(async () => {
    host = await makeHost();
    const wrap = (): Wrap<S> => ({
      storage: (storage) => host.wrapStorage?.(storage, fuse) ?? storage,
      state: (state) => stateWithFuse(state, fuse),
    });
    fuse.arm(null);
    fixture = await createFixture(() => host.makeStorage(fuse), wrap);
    fixture.settings = { ...fixture.settings, trashMs: 0 };
  });
  after(async () => {
    await fixture.dispose();
    await host.dispose?.();
  });

  const names = ['source', 'target'];
  const exists = (name: string) => fixture.context.state.byName(parseVolumeName(name)) !== undefined;

  async function atEveryStep(
    prepare: () => Promise<void>,
    operation: () => Promise<unknown>,
    check: (died: string) => Promise<void>,
  ): Promise<void> {
    for (let diesAt = 0; diesAt < stepsMax; diesAt += every) {
      await prepare();
      fuse.arm(diesAt);
      const failed = await operation().then(
        () => false,
        () => true,
      );
      const died = fuse.diedAt();
      fuse.arm(null);
      assert.ok(died !== null || !failed, 'the operation failed without a crash');
      await fixture.restart();
      await recover(fixture.context, never);
      await sweepTrash(fixture.context, never);
      const where = `after dying at step ${diesAt}, before "${died}"`;
      const records = fixture.context.state.all();
      assert.deepEqual(
        records.filter(({ phase }) => phase.kind !== 'ready' && phase.kind !== 'trashed'),
        [],
        where,
      );
      const datasets = await fixture.storage.list();
      assert.deepEqual(datasets.map(({ id }) => id).sort(), records.map(({ id }) => id).sort(), where);
      await check(where);
      await clean();
      // The operation ended before the fuse did: every step has had its turn.
      if (died === null) return;
    }
    assert.fail(`more than ${stepsMax} steps`);
  }

  async function clean(): Promise<void> {
    for (const name of names) if (exists(name)) await removeVolume(fixture.context, name, 'docker', never);
    fixture.nowMs += 365 * 86_400_000;
    await sweepTrash(fixture.context, never);
    assert.deepEqual(fixture.context.state.all(), []);
  }

  const create = (name: string, options: Record<string, string> = {}) =>
    createVolume(fixture.context, name, options, never);
  const write = (name: string, text: string) => host.write(fixture.storage, fixture.context, name, text);
  const read = (name: string) => host.read(fixture.storage, fixture.context, name);

  it('a volume that was being created is there whole, or not at all', async () => {
    await atEveryStep(
      () => Promise.resolve(),
      () => create('target', { size: '64M', mode: '0750' }),
      async (where) => {
        await create('target', { size: '64M' });
        await write('target', 'works');
        assert.equal(await read('target'), 'works', where);
      },
    );
  });

  it('a clone that was being made is there whole, or not at all, and its source is untouched', async () => {
    await atEveryStep(
      async () => {
        await create('source');
        await write('source', 'precious');
      },
      () => create('target', { from: 'source' }),
      async (where) => {
        assert.equal(await read('source'), 'precious', where);
        if (exists('target')) assert.equal(await read('target'), 'precious', where);
      },
    );
  });

  it('a volume that was being removed is still there, or gone, and its clone keeps its data', async () => {
    await atEveryStep(
      async () => {
        await create('source');
        await write('source', 'precious');
        await create('target', { from: 'source' });
      },
      () => removeVolume(fixture.context, 'source', 'docker', never),
      async (where) => {
        if (exists('source')) assert.equal(await read('source'), 'precious', where);
        assert.equal(await read('target'), 'precious', where);
      },
    );
  });

  it('a volume that was being rolled back holds the old or the new content, and the other one is not lost', async () => {
    await atEveryStep(
      async () => {
        await create('source');
        await write('source', 'old');
        await createSnapshot(fixture.context, 'source', 's1', never);
        await write('source', 'new');
        await createSnapshot(fixture.context, 'source', 's2', never);
      },
      () => rollbackVolume(fixture.context, 'source', 's1', never),
      async (where) => {
        const content = await read('source');
        const snapshots = async (id: DatasetId) =>
          (await fixture.storage.snapshots(id)).map(({ name }) => String(name));
        const record = fixture.context.state.byName(parseVolumeName('source'));
        assert.ok(record, where);
        if (content === 'new') {
          assert.deepEqual(await snapshots(record.id), ['s1', 's2'], where);
          return;
        }
        assert.equal(content, 'old', where);
        assert.deepEqual(await snapshots(record.id), ['s1'], where);
        const [aside] = fixture.context.state.all().filter(({ phase }) => phase.kind === 'trashed');
        assert.ok(aside, where);
        assert.deepEqual(await snapshots(aside.id), ['s2'], where);
      },
    );
  });
}
