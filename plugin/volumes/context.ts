import type { Logger } from 'pino';
import { FlockError } from '../../controller/model/errors.ts';
import type { DatasetId, VolumeName } from '../../controller/model/names.ts';
import { quote } from '../../controller/model/names.ts';
import type { Settings } from '../../controller/model/settings.ts';
import { encodeStamp, type VolumeRecord } from '../../controller/model/volume.ts';
import type { Holder } from '../holders.ts';
import type { Locks } from '../locks.ts';
import type { State, UnreadableRecord } from '../state.ts';
import { type DatasetOptions, type Storage, stampBytesMax } from '../storage/storage.ts';
import { useGraceMs, withoutLeaks } from '../uses.ts';
import type { Ownership } from './ownership.ts';
import type { Usage } from './usage.ts';

/** Everything the use cases work with. All that is not deterministic comes in here. */
export type Context = {
  readonly state: State;
  readonly storage: Storage;
  readonly locks: Locks;
  readonly usage: Usage;
  readonly ownership: Ownership;
  readonly settings: () => Settings;
  readonly clock: Clock;
  readonly findHolders: (ids: readonly DatasetId[]) => Promise<ReadonlyMap<DatasetId, readonly Holder[]>>;
  /** Whether Docker's daemon sees this dataset, which is mounted, where it will look for it. */
  readonly dockerShows: (id: DatasetId) => Promise<boolean>;
  /** Has the plugin end soon, for Docker to start it anew. */
  readonly beginAnew: (reason: string) => void;
  readonly describeHolder: (holder: Holder) => Promise<string>;
  readonly log: Logger;
};

export type Clock = {
  /** Of a clock that nobody sets, from the start of the machine. */
  bootMs(): number;
  nowMs(): number;
  randomHex(bytes: number): string;
  sleep(ms: number): Promise<void>;
};

/** The record that owns the name and can be worked with. */
export function readyVolume(context: Context, name: VolumeName): VolumeRecord {
  const record = existingVolume(context, name);
  if (record.phase.kind === 'ready') return record;
  const what = unfinished[record.phase.kind] ?? record.phase.kind;
  throw new FlockError(
    'volume-busy',
    `volume ${quote(name)} is still ${what}, which flock finishes on its own as soon as the pool allows; try again`,
    {
      phase: record.phase.kind,
    },
  );
}

const unfinished: Readonly<Partial<Record<VolumeRecord['phase']['kind'], string>>> = {
  creating: 'being created',
  'rolling-back': 'being rolled back',
  'handing-over': 'being handed to another node',
};

export function existingVolume(context: Context, name: VolumeName): VolumeRecord {
  const record = context.state.byName(name);
  if (record !== undefined) return record;
  refuseUnreadable(context, name);
  const doc = context.ownership.elsewhere(name);
  if (doc !== null)
    throw new FlockError('not-owner', `volume ${quote(name)} belongs to node ${doc.owner}: do this there`, {
      owner: doc.owner,
    });
  throw new FlockError(
    'volume-not-found',
    `there is no volume ${quote(name)}: "flockctl volume ls" lists the volumes, "flockctl trash ls" those that were removed`,
  );
}

/** A name whose record can't be read is taken: what it stands for must not be hidden by another volume. */
export function refuseUnreadable(context: Context, name: VolumeName): void {
  const row = context.state.unreadable().find((candidate) => candidate.name === name);
  if (row !== undefined) throw unreadableError(row);
}

function unreadableError({ id, name, reason }: UnreadableRecord): FlockError {
  return new FlockError(
    'storage-failed',
    `flock's record of volume ${quote(name ?? id)} can't be read (${reason}); its data, the dataset ${id}, is untouched. If a newer flock wrote it, install that one again; otherwise disable the plugin, run sqlite3 on /var/lib/flock/state.db with DELETE FROM volumes WHERE id = '${id}' and enable it: flock then takes name and options from the dataset itself`,
    { dataset: id },
  );
}

/** What a dataset of this volume is made with. */
export function datasetOptions(record: VolumeRecord, backend: Storage['kind']): DatasetOptions {
  const { sizeBytes, compression, recordSizeBytes, mode, uid, gid, properties } = record.options;
  const prefix = `${backend}.`;
  const own = Object.entries(properties).filter(([key]) => key.startsWith(prefix));
  return {
    quotaBytes: sizeBytes,
    compression,
    recordSizeBytes,
    mode,
    uid,
    gid,
    properties: Object.fromEntries(own.map(([key, value]) => [key.slice(prefix.length), value])),
    stamp: encodeStamp(record, stampBytesMax),
  };
}

/**
 * Refuses to go on while anybody has the dataset mounted, or Docker was just told to. `callers`: with `docker`, Docker has already
 * made sure that none of its containers refers to the volume, so only what the kernel shows counts.
 */
export async function refuseInUse(
  context: Context,
  record: VolumeRecord,
  caller: 'docker' | 'operator',
): Promise<void> {
  const atMs = context.clock.bootMs();
  const holders = (await context.findHolders([record.id])).get(record.id) ?? [];
  if (holders.length > 0) {
    const names = [...new Set(await Promise.all(holders.slice(0, holdersNamedMax).map(context.describeHolder)))];
    throw new FlockError(
      'volume-in-use',
      `volume ${quote(record.name)} is in use by ${names.join(', ')}: stop it first`,
      { holders: names },
    );
  }
  const told = withoutLeaks(context.state.uses(record.id), atMs);
  const [use] = told.toSorted((a, b) => b.sinceMs - a.sinceMs);
  if (caller === 'operator' && use !== undefined) {
    const leftMs = use.sinceMs + useGraceMs - atMs;
    throw new FlockError(
      'volume-in-use',
      `volume ${quote(record.name)} was mounted for Docker (mount ${use.mountId.slice(0, 12)}), though no container shows it: stop the container that is starting; if there is none, the unmount was lost, and this passes by itself in ${formatWait(leftMs)}`,
      { mountId: use.mountId, passesInMs: leftMs },
    );
  }
}

/** Rounded up, so that it is over when it is said to be. */
function formatWait(ms: number): string {
  const seconds = Math.max(1, Math.ceil(ms / 1000));
  return seconds < 60 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`;
}

const holdersNamedMax = 5;
