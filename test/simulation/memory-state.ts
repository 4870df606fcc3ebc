import type { VolumeDoc } from '../../controller/model/cluster.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import { ownsName, type VolumeRecord } from '../../controller/model/volume.ts';
import type { Boot, FactName, State } from '../../plugin/state.ts';
import { type Use, usesUntil } from '../../plugin/uses.ts';

/** What the file is to the real one: it survives the process. */
export type StateFile = {
  readonly records: Map<DatasetId, VolumeRecord>;
  readonly uses: Map<DatasetId, readonly Use[]>;
  readonly docs: Map<DatasetId, VolumeDoc>;
  readonly facts: Map<FactName | 'pool' | 'boot', string>;
  isOpen: boolean;
};

export function createStateFile(): StateFile {
  return { records: new Map(), uses: new Map(), docs: new Map(), facts: new Map(), isOpen: false };
}

/** A State without SQLite, a hundred times as fast; test/unit/state.test.ts checks both. */
export function openMemoryState(
  file: StateFile,
  boot: Boot,
  onChange: (before: VolumeRecord, after: VolumeRecord) => void = () => undefined,
): State {
  if (file.isOpen) throw new Error('database is locked');
  file.isOpen = true;
  const { records, uses, docs, facts } = file;
  const names = new Map<string, DatasetId>();
  if (facts.has('boot') && facts.get('boot') !== boot.id) uses.clear();
  facts.set('boot', boot.id);
  for (const [id, told] of uses) uses.set(id, usesUntil(told, boot.nowMs()));
  for (const record of records.values()) if (ownsName(record)) names.set(record.name, record.id);

  function forget(id: DatasetId): void {
    const old = records.get(id);
    if (old !== undefined && names.get(old.name) === id) names.delete(old.name);
    records.delete(id);
  }

  function refuseSecondOwner(put: readonly VolumeRecord[], gone: readonly DatasetId[]): void {
    const changed = new Set([...gone, ...put.map(({ id }) => id)]);
    const taken = new Set<string>();
    for (const record of put) {
      if (!ownsName(record)) continue;
      const holder = names.get(record.name);
      if (taken.has(record.name) || (holder !== undefined && !changed.has(holder)))
        throw new Error('UNIQUE constraint failed: volumes.owned_name');
      taken.add(record.name);
    }
  }

  return {
    all: () => [...records.values()],
    byId: (id) => records.get(id),
    byName(name) {
      const id = names.get(name);
      return id === undefined ? undefined : records.get(id);
    },
    commit({ put = [], delete: gone = [] }) {
      refuseSecondOwner(put, gone);
      for (const id of gone) {
        forget(id);
        uses.delete(id);
      }
      for (const record of put) {
        const before = records.get(record.id);
        if (before !== undefined) onChange(before, record);
        forget(record.id);
      }
      for (const record of put) {
        records.set(record.id, record);
        if (ownsName(record)) names.set(record.name, record.id);
      }
    },
    uses: (id) => uses.get(id) ?? [],
    setUses(id, next) {
      if (next.length === 0) uses.delete(id);
      else uses.set(id, next);
    },
    fact: (name) => facts.get(name) ?? null,
    setFact: (name, value) => void facts.set(name, value),
    docs: () => [...docs.values()],
    setDocs(put, gone) {
      for (const id of gone) docs.delete(id);
      for (const doc of put) docs.set(doc.id, doc);
    },
    unreadable: () => [],
    poolKnown: () => facts.has('pool'),
    setPoolKnown: () => void facts.set('pool', 'yes'),
    close() {
      file.isOpen = false;
    },
  };
}
