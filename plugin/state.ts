import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { decodeVolume, type VolumeDoc } from '../controller/model/cluster.ts';
import type { DatasetId, VolumeName } from '../controller/model/names.ts';
import { parseProblemOf } from '../controller/model/shape.ts';
import { decodeRecord, encodeRecord, ownsName, type VolumeRecord } from '../controller/model/volume.ts';
import { stateProblem } from './disk-problems.ts';
import { decodeUses, type Use } from './uses.ts';

/**
 * What this node knows of its volumes and their uses, durable in one SQLite file and mirrored in memory, so that Docker gets its
 * answers without a disk, a pool or another program.
 *
 * INVARIANTS
 * - The file is locked by one process for its whole life: two plugins can never both own the pool.
 * - At most one record of each name is in a phase that owns it (a unique index guards it).
 * - Memory never runs ahead of the file: it changes after the transaction has been committed.
 * - A row that can't be read stays as it is, keeps its name, and makes no other one unreadable.
 */
export type State = {
  all(): readonly VolumeRecord[];
  byId(id: DatasetId): VolumeRecord | undefined;
  /** The record that owns the name. */
  byName(name: VolumeName): VolumeRecord | undefined;
  /** Records that can't be read, left alone for whoever can. Nobody may make, adopt or destroy anything in their place. */
  unreadable(): readonly UnreadableRecord[];
  /** Writes and deletes records in one durable transaction. Throws `storage-failed` when the disk is full; nothing has changed then. */
  commit(changes: { readonly put?: readonly VolumeRecord[]; readonly delete?: readonly DatasetId[] }): void;
  uses(id: DatasetId): readonly Use[];
  /** Uses outlive this process, not the host's boot, so this does not wait for the disk. */
  setUses(id: DatasetId, uses: readonly Use[]): void;
  /** Small things that must survive the process, by name; null: never set. */
  fact(name: FactName): string | null;
  setFact(name: FactName, value: string): void;
  /** The cluster's volumes as last seen, for answers while the store is away. Costs no fsync: it can be had again. */
  docs(): readonly VolumeDoc[];
  setDocs(put: readonly VolumeDoc[], gone: readonly DatasetId[]): void;
  /** Whether flock has made or adopted this host's pool before. */
  poolKnown(): boolean;
  setPoolKnown(): void;
  close(): void;
};

/** `name`: the one that it owns, if any. */
export type UnreadableRecord = { readonly id: string; readonly name: string | null; readonly reason: string };

/** Of the host: another id after each boot, and the time since it began. */
export type Boot = { readonly id: string; nowMs(): number };

export type FactName = 'session' | 'profile' | 'nodes';

const schema = `
  CREATE TABLE IF NOT EXISTS volumes (id TEXT PRIMARY KEY, owned_name TEXT, record TEXT NOT NULL) STRICT;
  CREATE UNIQUE INDEX IF NOT EXISTS volumes_owned_name ON volumes (owned_name) WHERE owned_name IS NOT NULL;
  CREATE TABLE IF NOT EXISTS uses (volume TEXT PRIMARY KEY, uses TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS docs (volume TEXT PRIMARY KEY, doc TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
`;

/**
 * Opens the file, waiting up to `waitMs` for a predecessor that is just ending to let go of it. Throws `not-ready` where it is damaged
 * or its disk is full.
 */
export async function openState(path: string, waitMs: number, boot: Boot): Promise<State> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    let database: DatabaseSync | null = null;
    try {
      database = new DatabaseSync(path, { timeout: 100 });
      // An exclusive connection never gives up its lock, and the kernel takes it away when the process dies.
      database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; BEGIN IMMEDIATE; COMMIT;');
      database.exec(schema);
      return createState(database, path, boot);
    } catch (error) {
      database?.close();
      if (!isLocked(error) || performance.now() > deadline) throw stateProblem(error, path, 'not-ready');
      await sleep(50);
    }
  }
}

function createState(database: DatabaseSync, path: string, boot: Boot): State {
  const records = new Map<DatasetId, VolumeRecord>();
  const names = new Map<VolumeName, DatasetId>();
  const uses = new Map<DatasetId, readonly Use[]>();
  const unreadable: UnreadableRecord[] = [];
  const putRecord = database.prepare(
    'INSERT INTO volumes (id, owned_name, record) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET owned_name = excluded.owned_name, record = excluded.record',
  );
  const freeName = database.prepare('UPDATE volumes SET owned_name = NULL WHERE id = ?');
  const deleteRecord = database.prepare('DELETE FROM volumes WHERE id = ?');
  const putUses = database.prepare(
    'INSERT INTO uses (volume, uses) VALUES (?, ?) ON CONFLICT (volume) DO UPDATE SET uses = excluded.uses',
  );
  const deleteUses = database.prepare('DELETE FROM uses WHERE volume = ?');
  const putFact = database.prepare(
    'INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value',
  );

  const getFact = database.prepare('SELECT value FROM facts WHERE name = ?');
  const putDoc = database.prepare(
    'INSERT INTO docs (volume, doc) VALUES (?, ?) ON CONFLICT (volume) DO UPDATE SET doc = excluded.doc',
  );
  const deleteDoc = database.prepare('DELETE FROM docs WHERE volume = ?');

  function remember(record: VolumeRecord): void {
    forget(record.id);
    records.set(record.id, record);
    if (ownsName(record)) names.set(record.name, record.id);
  }

  function forget(id: DatasetId): void {
    const old = records.get(id);
    if (old !== undefined && names.get(old.name) === id) names.delete(old.name);
    records.delete(id);
  }

  function transaction(durable: boolean, work: () => void): void {
    try {
      database.exec(`PRAGMA synchronous = ${durable ? 'FULL' : 'NORMAL'}`);
      database.exec('BEGIN IMMEDIATE');
      work();
      database.exec('COMMIT');
    } catch (error) {
      // A COMMIT that failed (disk full) may have rolled back already.
      if (database.isTransaction) database.exec('ROLLBACK');
      throw stateProblem(error, path, 'storage-failed');
    }
  }

  for (const row of database.prepare('SELECT id, owned_name, record FROM volumes').all()) {
    try {
      remember(decodeRecord(String(row['record'])));
    } catch (error) {
      const name = row['owned_name'] === null ? null : String(row['owned_name']);
      unreadable.push({ id: String(row['id']), name, reason: parseProblemOf(error) });
    }
  }
  const lastBoot = getFact.get('boot')?.['value'];
  if (lastBoot !== boot.id)
    transaction(true, () => {
      // Their containers are gone with it.
      if (lastBoot !== undefined) database.exec('DELETE FROM uses');
      putFact.run('boot', boot.id);
    });
  for (const row of database.prepare('SELECT volume, uses FROM uses').all()) {
    const known = decodeUses(String(row['uses']), boot.nowMs());
    if (known.length > 0) uses.set(String(row['volume']) as DatasetId, known);
  }

  return {
    all: () => [...records.values()],
    byId: (id) => records.get(id),
    byName: (name) => {
      const id = names.get(name);
      return id === undefined ? undefined : records.get(id);
    },
    unreadable: () => unreadable,
    commit({ put = [], delete: gone = [] }) {
      transaction(true, () => {
        // Names are freed first, so that one transaction can pass a name from one record to another.
        for (const record of put) freeName.run(record.id);
        for (const id of gone) {
          deleteRecord.run(id);
          deleteUses.run(id);
        }
        for (const record of put) putRecord.run(record.id, ownsName(record) ? record.name : null, encodeRecord(record));
      });
      for (const id of gone) {
        forget(id);
        uses.delete(id);
      }
      for (const record of put) forget(record.id);
      for (const record of put) remember(record);
    },
    uses: (id) => uses.get(id) ?? [],
    setUses(id, next) {
      transaction(false, () => {
        if (next.length === 0) deleteUses.run(id);
        else putUses.run(id, JSON.stringify(next));
      });
      if (next.length === 0) uses.delete(id);
      else uses.set(id, next);
    },
    fact: (name) => {
      const row = getFact.get(name);
      return row === undefined ? null : String(row['value']);
    },
    setFact: (name, value) => transaction(true, () => void putFact.run(name, value)),
    docs: () =>
      database
        .prepare('SELECT doc FROM docs')
        .all()
        .flatMap((row) => readableDoc(String(row['doc']))),
    setDocs: (put, gone) =>
      transaction(false, () => {
        for (const id of gone) deleteDoc.run(id);
        for (const doc of put) putDoc.run(doc.id, JSON.stringify(doc));
      }),
    poolKnown: () => getFact.get('pool') !== undefined,
    setPoolKnown: () => transaction(true, () => void putFact.run('pool', new Date().toISOString())),
    close: () => database.close(),
  };
}

/** One that can't be read is as good as not seen yet: the store has it. */
function readableDoc(text: string): readonly VolumeDoc[] {
  try {
    return [decodeVolume(text)];
  } catch {
    return [];
  }
}

/** SQLITE_BUSY (5) and SQLITE_LOCKED (6). */
function isLocked(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && (error.errcode === 5 || error.errcode === 6);
}
