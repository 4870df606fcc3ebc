import assert from 'node:assert/strict';
import { checkNoted } from '../support/cluster/counting.ts';
import { type Acknowledgement, checkRecords, type Entry, parseAcknowledgement } from '../support/cluster/records.ts';
import { checkTurns } from '../support/cluster/turns.ts';

const entry = (number: number, node = 'n1', bootSeconds = number): Entry => ({ number, node, bootSeconds });
const lineOf = ({ number, node, bootSeconds }: Entry) => `${number} ${node} ${bootSeconds.toFixed(2)}\n`;
const fileOf = (...entries: readonly Entry[]) => entries.map(lineOf).join('');

describe('the check of a volume with records', () => {
  it('finds nothing wrong with all that was acknowledged, one more, and half a line', () => {
    const text = `${fileOf(entry(1), entry(2), entry(3, 'n2'))}4 n2`;
    assert.deepEqual(checkRecords(text, [entry(2), entry(1)]), { last: 3, faults: [], lost: [] });
  });

  it('finds gaps, repeated records and rubbish', () => {
    assert.deepEqual(checkRecords(fileOf(entry(1), entry(4)), []).faults, ['records 2 to 3 are missing']);
    assert.deepEqual(checkRecords(fileOf(entry(1), entry(2), entry(2)), []).faults, ['record 2 comes after record 2']);
    assert.deepEqual(checkRecords(`${fileOf(entry(1))}\0\0\n`, []).faults, ['line 2 is no record: "\0\0"']);
  });

  it('finds acknowledged records that are missing, or that another host wrote anew', () => {
    const text = fileOf(entry(1), entry(2, 'n2', 9));
    assert.deepEqual(checkRecords(text, [entry(1), entry(2), entry(3)]).lost, [entry(2), entry(3)]);
    assert.deepEqual(checkRecords('', [entry(1)]), { last: 0, faults: [], lost: [entry(1)] });
  });
});

describe('the acknowledgements of a writer', () => {
  it('say when the record was durable, which may be long after its own time', () => {
    const heard = parseAcknowledgement('acknowledged 7 n1 12.50 19.75');
    assert.deepEqual(heard, { number: 7, node: 'n1', bootSeconds: 12.5, durableSeconds: 19.75 });
    assert.deepEqual(checkRecords('7 n1 12.50\n', [heard as Acknowledgement]).lost, []);
    for (const line of ['failed 7 n1 12.50', 'acknowledged 7 n1 12.50', '7 n1 12.50 19.75'])
      assert.equal(parseAcknowledgement(line), null, line);
  });
});

describe('the check of who wrote a volume', () => {
  const text = fileOf(entry(1), entry(2), entry(3, 'n2'), entry(4));

  it('has nothing against owners in turn, of which some wrote nothing', () => {
    for (const owners of [
      ['n1', 'n2', 'n1'],
      ['n3', 'n1', 'n1', 'n2', 'n3', 'n1', 'n2'],
    ])
      assert.deepEqual(checkTurns(text, owners), []);
  });

  it('finds who wrote without being the owner, or in the time of another one', () => {
    for (const owners of [['n1', 'n2'], ['n1'], ['n2', 'n1'], []]) assert.equal(checkTurns(text, owners).length, 1);
    assert.deepEqual(checkTurns(fileOf(entry(1), entry(2, 'n2', 9), entry(3, 'n2', 8)), ['n1', 'n2']), [
      'record 3 is of n2 at 8, the one before it of n2 at 9',
    ]);
  });
});

describe('the check of a service that notes its requests', () => {
  const worker = (prefix: string, sent: number, failed: readonly string[] = []) => ({ prefix, sent, failed });

  it('wants what was answered to be there once, and leaves open what failed', () => {
    const results = [{ workers: [worker('a', 2), worker('b', 3, ['b:2 after 5 ms: 503'])] }];
    const good = { answered: 4, failed: ['b:2 after 5 ms: 503'], faults: [] };
    for (const more of ['', 'b:2\n', 'others\n'])
      assert.deepEqual(checkNoted(`a:1\nb:1\na:2\n${more}b:3\n`, results), good);
    assert.deepEqual(checkNoted('a:1\nb:1\na:1\nb:3\n', results).faults, [
      'a:1 is there 2 times',
      'a:2 was answered and is not there',
    ]);
  });
});
