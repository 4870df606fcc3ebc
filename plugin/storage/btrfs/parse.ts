import { type DatasetId, isDatasetId, parseSnapshotName, type SnapshotName } from '../../../controller/model/names.ts';

export type Subvolume = {
  /** Grows with every subvolume and is never used twice, so it is the order of creation. */
  readonly id: number;
  readonly uuid: string;
  readonly parentUuid: string | null;
  readonly receivedUuid: string | null;
  /** The commit that holds the last change of content. Making a snapshot counts as one of the source, a quota does not. */
  readonly generation: number;
  /** The commit that it came with; a snapshot holds its source as of that one. */
  readonly createdGeneration: number;
  /** From the top level. */
  readonly path: string;
};

/**
 * `btrfs subvolume list -cguqR`. A container can make subvolumes in its volume whose names hold line ends and so feign lines;
 * a path that comes twice is therefore believed only once, the older one. Pure.
 */
export function parseSubvolumes(text: string): readonly Subvolume[] {
  const byPath = new Map<string, Subvolume>();
  for (const line of text.split('\n')) {
    const match =
      /^ID (\d+) gen (\d+) cgen (\d+) top level \d+ parent_uuid (\S+)\s+received_uuid (\S+)\s+uuid (\S+) path (.+)$/.exec(
        line,
      );
    const [, id, generation, createdGeneration, parentUuid, receivedUuid, uuid, path] = match ?? [];
    if (uuid === undefined || path === undefined || byPath.has(path)) continue;
    byPath.set(path, {
      id: Number(id),
      uuid,
      parentUuid: uuidOrNull(parentUuid),
      receivedUuid: uuidOrNull(receivedUuid),
      generation: Number(generation),
      createdGeneration: Number(createdGeneration),
      path,
    });
  }
  return [...byPath.values()].sort((a, b) => a.id - b.id);
}

export type Usage = {
  readonly referenced: number;
  readonly exclusive: number;
  readonly maxReferenced: number | null;
};

/** `btrfs qgroup show --raw -re`: usage by subvolume id. Pure. */
export function parseUsage(text: string): ReadonlyMap<number, Usage> {
  const usage = new Map<number, Usage>();
  for (const line of text.split('\n')) {
    const [, id, referenced, exclusive, maxReferenced] =
      /^\s*0\/(\d+)\s+(-?\d+)\s+(-?\d+)\s+(none|\d+)\s/.exec(`${line} `) ?? [];
    if (id === undefined) continue;
    usage.set(Number(id), {
      referenced: Math.max(0, Number(referenced)),
      exclusive: Math.max(0, Number(exclusive)),
      maxReferenced: maxReferenced === 'none' ? null : Number(maxReferenced),
    });
  }
  return usage;
}

export type Shown = Omit<Subvolume, 'path'> & {
  readonly readOnly: boolean;
  readonly createdAtMs: number;
  readonly referenced: number;
  readonly maxReferenced: number | null;
};

/** `btrfs subvolume show --raw`. Pure. */
export function parseShown(text: string): Shown {
  const value = (name: string): string | undefined => {
    const line = text.split('\n').find((candidate) => candidate.trimStart().startsWith(`${name}:`));
    return line?.slice(line.indexOf(':') + 1).trim();
  };
  const uuid = value('UUID');
  const id = Number(value('Subvolume ID'));
  if (uuid === undefined || !Number.isSafeInteger(id))
    throw new Error(`btrfs subvolume show answered something else: ${text}`);
  const limit = value('Limit referenced');
  return {
    id,
    uuid,
    parentUuid: uuidOrNull(value('Parent UUID')),
    receivedUuid: uuidOrNull(value('Received UUID')),
    generation: Number(value('Generation')),
    createdGeneration: Number(value('Gen at creation')),
    readOnly: (value('Flags') ?? '').split(/\s+/).includes('readonly'),
    createdAtMs: Date.parse((value('Creation time') ?? '').replace(/^(\S+) (\S+) (\S+)$/, '$1T$2$3')),
    referenced: Number(value('Usage referenced') ?? 0),
    maxReferenced: limit === undefined || limit === '-' || limit === 'none' ? null : Number(limit),
  };
}

/** A received snapshot has a UUID of its own and remembers the original's, also when it is sent on or back. Pure. */
export function identityOf(subvolume: Pick<Subvolume, 'uuid' | 'receivedUuid'>): string {
  return subvolume.receivedUuid ?? subvolume.uuid;
}

export function liveIdOf(path: string): DatasetId | null {
  const id = /^volumes\/([^/]+)$/.exec(path)?.[1];
  return id !== undefined && isDatasetId(id) ? id : null;
}

export function snapshotOf(path: string): { readonly id: DatasetId; readonly name: SnapshotName } | null {
  const [, id, folder, name] = /^snapshots\/([^/]+)\/([^/]+)\/([A-Za-z0-9][A-Za-z0-9_.:-]{0,63})$/.exec(path) ?? [];
  if (id === undefined || name === undefined || folder !== name || !isDatasetId(id)) return null;
  return { id, name: parseSnapshotName(name) };
}

/** `btrfs subvolume find-new`: `transid marker was 20`. Pure. */
export function parseGeneration(text: string): number {
  const [, generation] = /^transid marker was (\d+)$/m.exec(text) ?? [];
  if (generation === undefined) throw new Error(`btrfs subvolume find-new answered something else: ${text}`);
  return Number(generation);
}

/** `btrfs property get PATH compression`: the value, or null for the pool's default. Pure. */
export function parseCompression(text: string): string | null {
  return /^compression=(\S+)$/m.exec(text)?.[1] ?? null;
}

/** `losetup -j`: `/dev/loop0: [65024]:2197230 (/path)`; the devices whose file has this inode. Pure. */
export function parseLoops(text: string, inode: number): readonly string[] {
  return text.split('\n').flatMap((line) => {
    const [, device, found] = /^(\/dev\/[^:]+): \[\d+\]:(\d+) /.exec(line) ?? [];
    return device !== undefined && Number(found) === inode ? [device] : [];
  });
}

/**
 * What a dataset and its snapshots occupy. btrfs has no exact number without a quota group per dataset, which makes snapshots
 * slow; this is a lower bound that misses only data shared by two snapshots and neither in the live content nor in the largest.
 */
export function totalOf(live: Usage, snapshots: readonly Usage[]): number {
  const exclusive = snapshots.reduce((sum, usage) => sum + usage.exclusive, 0);
  const withOne = snapshots.map((usage) => usage.referenced + live.exclusive + exclusive - usage.exclusive);
  return Math.max(live.referenced + exclusive, ...withOne);
}

function uuidOrNull(text: string | undefined): string | null {
  return text === undefined || text === '-' || text === '' ? null : text;
}
