import assert from 'node:assert/strict';
import { formatLabels, hasLabels, labelOf, parseLabels } from '../../controller/model/labels.ts';
import { refuses } from '../support/refuses.ts';

describe('labels', () => {
  it('are read, sorted and written', () => {
    assert.equal(formatLabels(parseLabels('rack=r1, dc=Lon.1')), 'dc=Lon.1,rack=r1');
    for (const text of ['', ',', 'a', 'a=', '=b', 'a=b,', 'a=b=c', 'A=b', 'a b=c', 'a=-x', '__proto__=x', 'a=1,a=1'])
      refuses(() => parseLabels(text), 'invalid-option');
    refuses(() => parseLabels(Array.from({ length: 17 }, (_, index) => `l${index}=x`).join()), 'invalid-option');
  });

  it('match when all that are wanted are there; every node has a data center', () => {
    const node = { rack: 'r1', disk: 'ssd' };
    assert.ok(hasLabels(node, {}));
    assert.ok(hasLabels(node, { disk: 'ssd', dc: 'default' }));
    assert.ok(!hasLabels(node, { disk: 'ssd', rack: 'r2' }));
    assert.ok(!hasLabels({ dc: 'lon' }, { dc: 'default' }));
    assert.equal(labelOf(node, 'constructor'), null);
  });
});
