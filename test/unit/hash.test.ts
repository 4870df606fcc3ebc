import assert from 'node:assert/strict';
import { hashText, mix } from '../../controller/model/hash.ts';

describe('hash', () => {
  it('is the same for ever: copies would move if it changed', () => {
    assert.deepEqual(
      ['', 'a', 'host-1', 'db.00000001'].map(hashText),
      [2_872_998_923, 444_641_715, 2_525_503_222, 426_899_804],
    );
    assert.equal(mix(0), 0);
    assert.equal(mix(1), 0x514e28b7);
  });

  it('changes about half of the bits for one bit of its input', () => {
    const bits = (value: number) => [...value.toString(2)].filter((digit) => digit === '1').length;
    for (let bit = 0; bit < 32; bit += 1) {
      let changed = 0;
      for (let value = 0; value < 2000; value += 1) changed += bits((mix(value) ^ mix(value ^ (1 << bit))) >>> 0);
      const share = changed / (2000 * 32);
      assert.ok(share > 0.47 && share < 0.53, `bit ${bit}: ${share}`);
    }
  });

  it('gives texts of one shape different numbers', () => {
    const hashes = new Set(Array.from({ length: 20_000 }, (_, index) => hashText(`host-${index}`)));
    assert.ok(hashes.size > 19_990, `${hashes.size}`);
  });
});
