import assert from 'node:assert/strict';
import { type DatasetId, isDatasetId } from '../../../controller/model/names.ts';
import { reasonOf } from './errors.ts';
import type { Mounts } from './mounts.ts';
import type { Property } from './parse.ts';
import type { Runner } from './runner.ts';

export type Clone = { readonly path: string; readonly origin: string };

export type Renaming = {
  /** Refused with `volume-busy` while the dataset itself is in use (zfs-fuse); its clones may be. */
  rename(from: string, to: string): Promise<void>;
  /** After a crash: gives a dataset back what its clone had for the time of a renaming. */
  giveBack(path: string): Promise<void>;
  /** The clones of a dataset's snapshots. */
  clonesOf(path: string): Promise<readonly Clone[]>;
};

/** On a dataset whose snapshots are lent to one of its clones. */
export const lentProperty = 'flock:lent';

export function isLent(property: Property | undefined): boolean {
  return property?.source === 'local';
}

/**
 * zfs-fuse does not rename a dataset of which a clone is mounted, and its client unmounts that clone in the attempt. Promotion does not
 * mind: the clone becomes the origin for the time of the renaming. A property says so, for the case of a crash in between.
 */
export function createRenaming(runner: Runner, mounts: Mounts): Renaming {
  const { config } = runner;
  const plain = (from: string, to: string) => runner.zfs(['rename', '--', from, to]);

  /** Clones are made below the prefix only, so one look there finds them; zfs-fuse has no property `clones`. */
  async function clonesOf(path: string): Promise<readonly Clone[]> {
    const table = await runner.get(['origin'], [config.prefix], 'children');
    return [...table].flatMap(([clone, properties]) => {
      const origin = properties.get('origin')?.value ?? '-';
      return origin.startsWith(`${path}@`) ? [{ path: clone, origin }] : [];
    });
  }

  function idOf(path: string): DatasetId | null {
    const id = path.slice(config.prefix.length + 1);
    return isDatasetId(id) ? id : null;
  }

  /** Whether a clone is mounted for somebody; idle mounts of the daemon are let go. */
  async function areUsed(clones: readonly Clone[]): Promise<boolean> {
    let used = false;
    for (const { path } of clones) {
      const id = idOf(path);
      if (id !== null && !(await mounts.letGo(id))) used = true;
    }
    return used;
  }

  type Facts = { readonly ages: ReadonlyMap<string, number>; readonly isLent: boolean };

  async function factsOf(path: string): Promise<Facts> {
    const table = await runner.get(['createtxg', lentProperty], [path], 'children');
    const ages = [...table].flatMap(([snapshot, properties]): [string, number][] =>
      snapshot.startsWith(`${path}@`) ? [[snapshot, Number(properties.get('createtxg')?.value ?? 0)]] : [],
    );
    return { ages: new Map(ages), isLent: isLent(table.get(path)?.get(lentProperty)) };
  }

  async function giveBack(path: string): Promise<void> {
    const property = (await runner.get([lentProperty], [path])).get(path)?.get(lentProperty);
    if (isLent(property)) await takeBack(path);
  }

  async function takeBack(path: string): Promise<void> {
    try {
      await runner.zfs(['promote', path]);
    } catch (error) {
      if (reasonOf(error) !== 'not-a-clone') throw error;
    }
    await runner.zfs(['inherit', lentProperty, path]);
  }

  /** The clone of the youngest snapshot, promoted, takes over all that clones need. */
  async function renameLending(from: string, to: string, clones: readonly Clone[], { ages }: Facts): Promise<void> {
    const age = ({ origin }: Clone) => ages.get(origin) ?? 0;
    const heir = clones.toSorted((a, b) => age(a) - age(b)).at(-1);
    assert(heir !== undefined);
    await runner.set(from, { [lentProperty]: 'on' });
    try {
      await runner.zfs(['promote', heir.path]);
      await plain(from, to);
    } catch (error) {
      await takeBack(from);
      throw error;
    }
    await takeBack(to);
  }

  return {
    clonesOf,
    giveBack,

    async rename(from, to) {
      if (config.variant === 'openzfs') {
        await plain(from, to);
        return;
      }
      let facts = await factsOf(from);
      if (facts.isLent) {
        await takeBack(from);
        facts = await factsOf(from);
      }
      const clones = facts.ages.size === 0 ? [] : await clonesOf(from);
      if (clones.length === 0) await plain(from, to);
      else if (await areUsed(clones)) await renameLending(from, to, clones, facts);
      else {
        try {
          await plain(from, to);
        } catch (error) {
          // A clone may be mounted where it is not seen from here.
          if (reasonOf(error) !== 'busy') throw error;
          await renameLending(from, to, clones, facts);
        }
      }
    },
  };
}
