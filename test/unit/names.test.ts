import assert from 'node:assert/strict';
import {
  datasetIdFor,
  isDatasetId,
  parseUserSnapshotName,
  parseVolumeName,
  parseVolumeRef,
} from '../../controller/model/names.ts';
import { refuses } from '../support/refuses.ts';

describe('names', () => {
  it('takes what Docker takes for its own volumes', () => {
    for (const name of ['ab', 'db', 'shop_pgdata', 'A-1.b', 'f'.repeat(64), 'x'.repeat(128)])
      assert.equal(parseVolumeName(name), name);
  });

  for (const name of [
    '',
    'a',
    '/',
    'a/b',
    '..',
    '../x',
    '.',
    '-rf',
    '--help',
    '_a',
    '.a',
    'a b',
    'a@b',
    'a\0b',
    'a\n',
    'é',
    '数据',
    'x'.repeat(129),
    'x'.repeat(300),
    'a;b',
    '$(id)',
    'a\\b',
    '%2e',
  ]) {
    it(`refuses the volume name ${JSON.stringify(name).slice(0, 20)} and names it`, () => {
      const error = refuses(() => parseVolumeName(name), 'invalid-name');
      assert.match(error.message, /^invalid volume name "/);
      assert.ok(error.message.length < 400);
    });
  }

  it('makes ids that are names of datasets and lead back to no other volume', () => {
    const id = datasetIdFor(parseVolumeName('db.1'), '0a1b2c3d');
    assert.equal(id, 'db.1.0a1b2c3d');
    assert.ok(isDatasetId(id));
    for (const text of ['db', 'db.xyz', '.0a1b2c3d', 'a/b.0a1b2c3d', 'db.0a1b2c3d@s', '-o.0a1b2c3d'])
      assert.equal(isDatasetId(text), false, text);
  });

  it('splits VOLUME@SNAPSHOT', () => {
    assert.deepEqual(parseVolumeRef('db@before.upgrade:1'), { name: 'db', snapshot: 'before.upgrade:1' });
    assert.deepEqual(parseVolumeRef('db'), { name: 'db', snapshot: null });
    refuses(() => parseVolumeRef('db@'), 'invalid-name');
    refuses(() => parseVolumeRef('db@a@b'), 'invalid-name');
  });

  it('keeps its own snapshot names from users', () => {
    refuses(() => parseUserSnapshotName('flock.clone-1'), 'invalid-name');
  });
});
