import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import type { DatasetId, VolumeName } from '../../controller/model/names.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';

/**
 * What the use cases ask before they touch a volume that may belong to another node, and what they tell when they have changed one.
 * All but `elsewhere`, `all`, `copies` and `forward` are called under the lock of the volume's name.
 */
export type Ownership = {
  /** The volume of this name, if another node owns it; as last seen. */
  elsewhere(name: VolumeName): VolumeDoc | null;
  /** All volumes of other nodes. */
  all(): readonly VolumeDoc[];
  /** The copies of a volume of this node. `lagMs` null: not known yet. */
  copies(id: DatasetId): readonly { readonly node: string; readonly lagMs: number | null }[];
  /** The record that a dataset found without one is to get; null: not known yet, leave it. */
  adopt(record: VolumeRecord): VolumeRecord | null;
  /** Makes a new volume this node's and its name known everywhere; answers the record with its epoch. `volume-exists` if there is one. */
  claim(record: VolumeRecord): Promise<VolumeRecord>;
  /** Brings a volume of another node here. Throws why that is not possible, or `handoff-running`. */
  obtain(name: VolumeName, signal: AbortSignal): Promise<void>;
  /** Throws `lease-lost` unless this node can prove that the volume is its own. */
  assure(record: VolumeRecord): void;
  /** Told after a volume went to the trash or got other options. */
  publish(record: VolumeRecord): Promise<void>;
  /** Told before a volume comes back from the trash, maybe under another name. Answers the record with its epoch. Throws like `claim`. */
  restore(record: VolumeRecord): Promise<VolumeRecord>;
  /** Told before a volume's data goes for good. */
  withdraw(record: VolumeRecord): Promise<void>;
  /** The content may be another, or the volume was just unmounted. */
  touched(id: DatasetId): void;
  /** Has the owner do what flockctl or Docker asked this node for: a request of the REST API. Answers its body. */
  forward(doc: VolumeDoc, request: ApiRequest, signal: AbortSignal): Promise<unknown>;
};

export type ApiRequest = { readonly method: string; readonly path: string; readonly body: unknown };

/** On a host without a cluster everything belongs to it. */
export const soleOwnership: Ownership = {
  elsewhere: () => null,
  all: () => [],
  copies: () => [],
  adopt: (record) => record,
  claim: async (record) => record,
  obtain: async () => undefined,
  assure: () => undefined,
  publish: async () => undefined,
  restore: async (record) => record,
  withdraw: async () => undefined,
  touched: () => undefined,
  forward: async () => undefined,
};

/**
 * In the moments, or as long as it takes, until a member's part in the cluster runs: what is known is answered, nothing may be
 * changed. `docs`: the volumes of the cluster as last seen; `isHere`: whether this node has one as its own.
 */
export function absentOwnership(docs: () => readonly VolumeDoc[], isHere: (id: DatasetId) => boolean): Ownership {
  const others = () => docs().filter((doc) => doc.trashed === null && !isHere(doc.id));
  return {
    ...soleOwnership,
    elsewhere: (name) => others().find((doc) => doc.name === name) ?? null,
    all: others,
    adopt: () => null,
    claim: refuse,
    obtain: refuse,
    assure: () => {
      throw notYet();
    },
    publish: refuse,
    restore: refuse,
    withdraw: refuse,
    forward: refuse,
  };
}

async function refuse(): Promise<never> {
  throw notYet();
}

function notYet(): FlockError {
  return new FlockError(
    'not-ready',
    'this node is part of a cluster and waits for the store ("flockctl status"); try again in a moment',
  );
}
