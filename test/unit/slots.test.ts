import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { createPatientSlots } from '../../plugin/exec.ts';

const patience = (limitMs: number) => ({
  limitMs,
  late: () => new Error('late'),
  full: () => new Error('full'),
});
/** Work that ends when it is told to. */
function endless() {
  let end: (value: string) => void = () => undefined;
  const ended = new Promise<string>((resolve) => {
    end = resolve;
  });
  return { work: () => ended, end: () => end('done') };
}

describe('slots for work that may never end', () => {
  it('answer what it answers, or how it fails', async () => {
    const slots = createPatientSlots(1);
    assert.equal(await slots(async () => 'one', patience(1_000)), 'one');
    await assert.rejects(
      slots(() => Promise.reject(new Error('no')), patience(1_000)),
      /^Error: no$/,
    );
    assert.equal(await slots(async () => 'two', patience(1_000)), 'two');
  });

  it('let nobody wait behind it for ever, and start no more of it than there are slots', async () => {
    const slots = createPatientSlots(2);
    const stuck = [endless(), endless()];
    let begun = 0;
    const begin = (work: () => Promise<string>, limitMs: number) =>
      slots(() => {
        begun += 1;
        return work();
      }, patience(limitMs));
    const first = stuck.map(({ work }) => begin(work, 30));
    const behind = begin(async () => 'behind', 30);
    for (const one of first) await assert.rejects(one, /late/);
    await assert.rejects(behind, /full/);
    await assert.rejects(
      begin(async () => 'later', 30),
      /full/,
    );
    assert.equal(begun, 2);
    stuck[0]?.end();
    await sleep(1);
    assert.equal(await begin(async () => 'again', 1_000), 'again');
    stuck[1]?.end();
    await sleep(1);
    assert.deepEqual(await Promise.all(['a', 'b', 'c'].map((text) => begin(async () => text, 1_000))), ['a', 'b', 'c']);
    assert.equal(begun, 6);
  });
});
