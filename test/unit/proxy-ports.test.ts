import assert from 'node:assert/strict';
import { allocatePorts, noPorts, portRange, recallPorts } from '../../proxy/model/ports.ts';

const { first, last } = portRange;

describe('the ports that a proxy gives away', () => {
  it('stay with what they were given for', () => {
    const one = allocatePorts(['a', 'b'], noPorts);
    assert.deepEqual(one.state.held, { a: first, b: first + 1 });
    const two = allocatePorts(['c', 'b'], one.state);
    assert.deepEqual(two.state.held, { b: first + 1, c: first + 2 });
  });

  it('come last after they were given up: others may lead there for a moment yet', () => {
    let state = noPorts;
    const given: (number | undefined)[] = [];
    for (let round = 0; round <= last - first + 1; round += 1) {
      const key = `k${round}`;
      ({ state } = allocatePorts([key], state));
      given.push(state.held[key]);
    }
    assert.equal(new Set(given).size, last - first + 1);
    assert.equal(given.at(-1), first);
  });

  it('are refused when there are none left, and only then', () => {
    const size = last - first + 1;
    const keys = Array.from({ length: size + 2 }, (_, n) => `k${n}`);
    const { state, missing } = allocatePorts(keys, noPorts);
    assert.equal(Object.keys(state.held).length, size);
    assert.deepEqual(missing, [`k${size}`, `k${size + 1}`]);
    const next = allocatePorts(keys.slice(1), state);
    assert.deepEqual(next.missing, [`k${size + 1}`]);
    assert.equal(next.state.held[`k${size}`], first);
  });

  it('are never given twice, and none out of the range is believed', () => {
    const { state } = allocatePorts(['a', 'b', 'c'], { held: { a: first + 5, b: first + 5, c: 80 }, last });
    assert.deepEqual(Object.values(state.held).toSorted(), [first, first + 1, first + 5]);
  });

  it('are recalled from documents where nothing newer is known', () => {
    const state = recallPorts({ held: { a: first }, last: first }, { a: first + 9, b: first + 3 });
    assert.deepEqual(state, { held: { a: first, b: first + 3 }, last: first });
  });

  it('gives ports that documents name last, whoever has had them', () => {
    const { first, last } = portRange;
    const { state } = allocatePorts(['new'], { held: {}, last }, [first, first + 1]);
    assert.equal(state.held['new'], first + 2);
    const all = Array.from({ length: last - first + 1 }, (_, index) => first + index);
    assert.deepEqual(allocatePorts(['new'], noPorts, all).missing, []);
  });
});
