import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type DatasetId, datasetIdFor, parseVolumeName } from '../../controller/model/names.ts';
import { noOptions, parseOptions } from '../../controller/model/options.ts';
import {
  decodeRecord,
  encodeRecord,
  encodeStamp,
  recordFromStamp,
  type VolumeRecord,
} from '../../controller/model/volume.ts';
import { type Boot, openState, type State } from '../../plugin/state.ts';
import { createStateFile, openMemoryState } from '../simulation/memory-state.ts';
import { refuses } from '../support/refuses.ts';

const db = parseVolumeName('db');
const record = (suffix: string, phase: VolumeRecord['phase'] = { kind: 'ready' }): VolumeRecord => ({
  id: datasetIdFor(db, suffix),
  name: db,
  createdAtMs: 1000,
  options: noOptions,
  epoch: 0,
  phase,
});
const first = { id: 'first', nowMs: () => 1_000 };
const second = { id: 'second', nowMs: () => 1_000 };
const trashed = { kind: 'trashed', removedAtMs: 1, expiresAtMs: 2, reason: 'removed' } as const;

describe('state file', () => {
  let folder = '';
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'flock-state-'));
  });
  afterEach(async () => await rm(folder, { recursive: true }));
  checkState((boot = first) => openState(join(folder, 'state.db'), 0, boot));
});

describe('state of the simulation', () => {
  let file = createStateFile();
  beforeEach(() => {
    file = createStateFile();
  });
  checkState(async (boot = first) => openMemoryState(file, boot));
});

function checkState(open: (boot?: Boot) => Promise<State>): void {
  it('gives back after a restart what was committed', async () => {
    const first = await open();
    const use = { mountId: 'm', count: 2, sinceMs: 5 };
    first.commit({ put: [record('00000001')] });
    first.setUses(record('00000001').id, [use]);
    first.setPoolKnown();
    first.close();
    const second = await open();
    assert.deepEqual(second.byName(db), record('00000001'));
    assert.deepEqual(second.uses(record('00000001').id), [use]);
    assert.equal(second.poolKnown(), true);
    second.close();
  });

  it('keeps uses as long as the host runs, whatever clock they go by, and forgets them with its boot', async () => {
    const { id } = record('00000001');
    const before = await open(first);
    before.commit({ put: [record('00000001')] });
    before.setUses(id, [{ mountId: 'of the wall clock', count: 1, sinceMs: 1_764_000_000_000 }]);
    before.close();
    const after = await open(first);
    assert.deepEqual(after.uses(id), [{ mountId: 'of the wall clock', count: 1, sinceMs: 1_000 }]);
    after.close();
    const booted = await open(second);
    assert.deepEqual(booted.uses(id), []);
    booted.close();
    const again = await open(second);
    assert.deepEqual(again.uses(id), []);
    again.close();
  });

  it('lets one process in at a time', async () => {
    const first = await open();
    await assert.rejects(open(), /locked/);
    first.close();
    (await open()).close();
  });

  it('refuses a second owner of a name and then holds what it held before', async () => {
    const state = await open();
    state.commit({ put: [record('00000001')] });
    assert.throws(() => state.commit({ put: [record('00000002')] }), /UNIQUE/);
    assert.equal(state.byName(db)?.id, 'db.00000001');
    assert.equal(state.byId('db.00000002' as DatasetId), undefined);
    state.close();
  });

  it('frees a name for its next owner in one transaction', async () => {
    const state = await open();
    state.commit({ put: [record('00000001')] });
    state.commit({ put: [record('00000002'), record('00000001', trashed)] });
    assert.equal(state.byName(db)?.id, 'db.00000002');
    state.commit({ delete: [record('00000002').id] });
    assert.equal(state.byName(db), undefined);
    assert.equal(state.all().length, 1);
    state.close();
  });
}

describe('records and stamps', () => {
  it('come back as they were written', () => {
    const full: VolumeRecord = {
      ...record('00000001', { kind: 'creating', source: { id: datasetIdFor(db, '00000002'), snapshot: null } }),
      options: parseOptions({ size: '1G', from: 'db@s', 'zfs.atime': 'on' }),
    };
    assert.deepEqual(decodeRecord(encodeRecord(full)), full);
    const adopted = recordFromStamp(full.id, encodeStamp(full, 1000), noOptions);
    assert.deepEqual(adopted, { ...full, options: { ...full.options, from: null }, phase: { kind: 'ready' } });
  });

  it('refuses options that no stamp can hold', () => {
    const properties = Object.fromEntries(Array.from({ length: 9 }, (_, index) => [`zfs.p${index}`, 'x'.repeat(200)]));
    refuses(
      () => encodeStamp({ ...record('00000001'), options: { ...noOptions, properties } }, 1000),
      'invalid-option',
    );
  });

  it('takes nothing that is not a stamp for one', () => {
    for (const text of ['', '{}', 'null', '{"name":"../x","created":1,"options":{}}', '-'])
      assert.equal(recordFromStamp(datasetIdFor(db, '00000001'), text, noOptions), null);
  });
});
