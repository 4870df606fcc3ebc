import assert from 'node:assert/strict';
import { formatSeconds, pauseMsOf, placeOf, summaryOf } from '../../controller/model/move-summary.ts';
import { createMoveFigures } from '../../controller/moves/figures.ts';
import { advanced, done, failed, moveDoc } from '../support/move-documents.ts';

const through = (count: number) => Array.from({ length: count }, () => done());

describe('what is told of moves that are over', () => {
  const ended = advanced(moveDoc(), ...through(9));
  const progress = { sentBytes: 34 * 1024 ** 2, totalBytes: 34 * 1024 ** 2, bytesPerSecond: 1 };

  it('is how long requests waited, from the pause to the release', () => {
    // Steps of 100, 200, 300 ms ...: pausing is the third, releasing the eighth.
    assert.equal(pauseMsOf(ended), 300 + 400 + 500 + 600 + 700 + 800);
    assert.equal(pauseMsOf(advanced(moveDoc({ services: [] }), ...through(9))), 500 + 600 + 700);
    assert.equal(pauseMsOf(advanced(moveDoc(), done(), failed())), null, 'nothing was stopped');
  });

  it('is a line for people', () => {
    assert.equal(summaryOf({ ...ended, progress }), 'web from n1 to n2: 3.3 s pause, 34 MiB sent');
    assert.equal(
      summaryOf(advanced(moveDoc({ services: [], volumes: [] }), ...through(9))),
      'web from n1 to n2: away for 1.8 s',
    );
    assert.equal(
      summaryOf(advanced(moveDoc(), failed('no image'), done())),
      'web from n1 to n2 has failed at preparing: no image (it is on n1)',
    );
    // Committed, and not given back; given back.
    const committed = advanced(moveDoc(), ...through(6));
    const placed = (...outcomes: Parameters<typeof advanced>[1][]) => placeOf(advanced(committed, ...outcomes));
    assert.equal(placed(failed('port 80 is taken'), failed('the store is away')), 'n2');
    assert.equal(placed(failed('port 80 is taken'), done(), done()), 'n1');
    assert.equal(placed(done(), done()), 'n2');
    assert.deepEqual([0, 999, 1_000, 12_340].map(formatSeconds), ['0 ms', '999 ms', '1.0 s', '12.3 s']);
  });

  it('is counted for Prometheus', async () => {
    const figures = createMoveFigures();
    figures.ended(ended);
    figures.ended(advanced(moveDoc({ cause: 'drain' }), failed(), done()));
    const text = await figures.text();
    assert.match(text, /^flock_controller_moves_total\{cause="operator",result="done"\} 1$/m);
    assert.match(text, /^flock_controller_moves_total\{cause="drain",result="failed"\} 1$/m);
    assert.match(text, /^flock_controller_move_pause_seconds_bucket\{le="5"\} 1$/m);
    assert.match(text, /^flock_controller_move_pause_seconds_count 1$/m);
  });
});
