import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { FlockError } from '../../controller/model/errors.ts';
import { datasetIdFor, parseVolumeName } from '../../controller/model/names.ts';
import { noOptions } from '../../controller/model/options.ts';
import { parseSettingsText, type Settings } from '../../controller/model/settings.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import { fileProblem, stateProblem } from '../../plugin/disk-problems.ts';
import { pathsBelow } from '../../plugin/paths.ts';
import { saveSettings } from '../../plugin/pool.ts';
import { openState } from '../../plugin/state.ts';
import { rejects } from '../support/refuses.ts';

const db = parseVolumeName('db');
const record = (suffix: string, phase: VolumeRecord['phase'] = { kind: 'ready' }): VolumeRecord => ({
  id: datasetIdFor(db, suffix),
  name: db,
  createdAtMs: 1000,
  options: noOptions,
  epoch: 0,
  phase,
});
const trashed = { kind: 'trashed', removedAtMs: 1, expiresAtMs: 2, reason: 'removed' } as const;

describe("faults of flock's own files", () => {
  let folder = '';
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'flock-state-'));
  });
  afterEach(async () => await rm(folder, { recursive: true }));
  const open = () => openState(join(folder, 'state.db'), 0, { id: 'boot', nowMs: () => 1_000 });

  it('sets aside what it can not read, and keeps its name', async () => {
    const first = await open();
    first.commit({ put: [record('00000001'), { ...record('00000002', trashed), name: parseVolumeName('other') }] });
    first.setUses(record('00000001').id, [{ mountId: 'm', count: 1, sinceMs: 1 }]);
    first.close();
    const raw = new DatabaseSync(join(folder, 'state.db'));
    const change = (id: string, from: string, to: string) =>
      raw.prepare('UPDATE volumes SET record = replace(record, ?, ?) WHERE id = ?').run(from, to, id);
    change('db.00000001', '"ready"', '"from the future"');
    change('db.00000002', '"expiresAtMs":2', '"expiresAtMs":604799999395200000');
    raw.exec("UPDATE uses SET uses = '{'");
    raw.close();
    for (let round = 0; round < 2; round += 1) {
      const state = await open();
      assert.deepEqual(state.all(), []);
      const [ready, old] = state.unreadable().toSorted((a, b) => (a.id < b.id ? -1 : 1));
      assert.deepEqual([ready?.id, ready?.name, old?.id, old?.name], ['db.00000001', 'db', 'db.00000002', null]);
      assert.match(old?.reason ?? '', /^"phase.expiresAtMs": Too big/);
      assert.throws(() => state.commit({ put: [record('00000003')] }), /UNIQUE/);
      state.close();
    }
  });

  it('says what to do about a damaged file', async () => {
    await writeFile(join(folder, 'state.db'), randomBytes(8192));
    const error = await rejects(open(), 'not-ready');
    assert.match(error.message, /state\.db is damaged .*put a copy of it back/);
  });

  it('names the file system and the way out when the disk is full, for the state and for plain files', () => {
    const full = Object.assign(new Error('database or disk is full'), { errcode: 13 });
    for (const error of [
      stateProblem(full, '/var/lib/flock/state.db', 'storage-failed'),
      fileProblem(Object.assign(new Error('ENOSPC: no space'), { code: 'ENOSPC' }), '/var/lib/flock/settings.json'),
    ]) {
      assert.ok(error instanceof FlockError && error.code === 'storage-failed');
      assert.match(
        error.message,
        /file system that holds \/var\/lib\/flock\/\S+ is full.*nothing was changed.*df \/var\/lib\/flock/,
      );
    }
    const other = new Error('another');
    assert.equal(stateProblem(other, '/x', 'storage-failed'), other);
    assert.equal(fileProblem(other, '/x'), other);
  });

  it('changes nothing and leaves nothing behind when the settings can not be written', async () => {
    const paths = { ...pathsBelow('/'), settings: join(folder, 'settings.json') };
    await writeFile(paths.settings, 'old');
    await symlink('/dev/full', `${paths.settings}.new`);
    const settings = { ...parseSettingsText('backend=btrfs pool=/p'), trashMs: 1 } as Settings;
    await rejects(saveSettings(paths, settings), 'storage-failed');
    assert.deepEqual(await readdir(folder), ['settings.json']);
    assert.equal(await readFile(paths.settings, 'utf8'), 'old');
  });
});
