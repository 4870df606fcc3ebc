import assert from 'node:assert/strict';
import { pino } from 'pino';
import { datasetIdFor, parseVolumeName } from '../../controller/model/names.ts';
import { createPromises, type PromiseParts } from '../../plugin/cluster/promises.ts';
import { lateMsMax } from '../../plugin/cluster/unanswered.ts';

const id = datasetIdFor(parseVolumeName('data'), '00000001');

describe('a node with a copy that was taking the volume when its plugin ended', () => {
  let nowMs = 100_000;
  let session: string | null = null;
  let taking: true | undefined;

  /** As a plugin that has just started. */
  function start() {
    const phase = { kind: 'replica', owner: 'n1', stashing: null, taking };
    return createPromises({
      clock: { bootMs: () => nowMs },
      directory: { volume: () => ({ session, doc: { epoch: 1 } }) },
      state: { byId: () => ({ epoch: 1, phase }) },
      timing: { guardMs: 7_000 },
      log: pino({ level: 'silent' }),
    } as unknown as PromiseParts);
  }
  const isPromised = (promises: ReturnType<typeof start>) => promises.give([{ id, epoch: 1 }]).length === 1;

  it('promises its owner nothing as long as the store may still give it the volume', () => {
    taking = true;
    const promises = start();
    assert.ok(!isPromised(promises));
    nowMs += lateMsMax - 1;
    assert.ok(!isPromised(promises));
    // Whoever has locked it since has changed what the question was about.
    session = 'another';
    assert.ok(isPromised(promises));
    session = null;
    nowMs += 1;
    assert.ok(isPromised(promises));
  });

  it('promises at once where it was not', () => {
    taking = undefined;
    assert.ok(isPromised(start()));
  });
});
