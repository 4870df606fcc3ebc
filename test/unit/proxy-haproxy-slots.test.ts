import assert from 'node:assert/strict';
import { allocateSlots, noSlots, slotKinds, slotsSchema } from '../../proxy/stack/haproxy/slots.ts';

const none = { hr: [], hl: [], tr: [], tl: [] };
const free = () => false;

describe('HAProxy slots', () => {
  it('keeps what is held and gives new ones the first free slots', () => {
    const first = allocateSlots({ ...none, hr: ['web 80', 'api 80'] }, noSlots, free);
    assert.deepEqual(first.held.hr, { 'web 80': 0, 'api 80': 1 });
    const second = allocateSlots({ ...none, hr: ['new 80', 'api 80', 'web 80'] }, first, free);
    assert.deepEqual(second.held.hr, { 'web 80': 0, 'api 80': 1, 'new 80': 2 });
  });

  it('gives a slot that was given up to nobody in the same turn, nor while it has servers', () => {
    const first = allocateSlots({ ...none, tr: ['db 5432'] }, noSlots, free);
    const second = allocateSlots({ ...none, tr: ['mail 25'] }, first, free);
    assert.deepEqual(second.held.tr, { 'mail 25': 1 });
    const third = allocateSlots(
      { ...none, tr: ['mail 25', 'web 80'] },
      second,
      (kind, index) => kind === 'tr' && index === 0,
    );
    assert.deepEqual(third.held.tr, { 'mail 25': 1, 'web 80': 2 });
    const fourth = allocateSlots(
      { ...none, tr: ['mail 25', 'ftp 21'] },
      third,
      (kind, index) => kind === 'tr' && index === 2,
    );
    assert.deepEqual(fourth.held.tr, { 'mail 25': 1, 'ftp 21': 0 });
  });

  it('keeps a stock that doubles and never shrinks', () => {
    const { stockMin } = slotKinds.hl;
    const keys = Array.from({ length: stockMin + 1 }, (_, index) => `s${index} 80`);
    assert.equal(allocateSlots({ ...none, hl: keys.slice(1) }, noSlots, free).stock.hl, stockMin);
    const grown = allocateSlots({ ...none, hl: keys }, noSlots, free);
    assert.equal(grown.stock.hl, 2 * stockMin);
    assert.equal(allocateSlots(none, grown, free).stock.hl, 2 * stockMin);
  });

  it('does not believe a file in which two have one slot', () => {
    const text = JSON.stringify({ held: { ...noSlots.held, hr: { 'a 1': 0, 'b 1': 0 } }, stock: noSlots.stock });
    const read = slotsSchema.parse(JSON.parse(text));
    const { held } = allocateSlots({ ...none, hr: ['a 1', 'b 1'] }, read, free);
    assert.equal(held.hr['a 1'], 0);
    assert.equal(held.hr['b 1'], 1);
  });
});
