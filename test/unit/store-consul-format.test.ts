import assert from 'node:assert/strict';
import { nextIndex } from '../../controller/store/consul.ts';
import {
  conflictOf,
  entriesOf,
  outcomeOf,
  parseJson,
  toConsul,
  toFlockError,
} from '../../controller/store/consul-format.ts';
import type { Operation, SessionId } from '../../controller/store/store.ts';

const session = '7dcbd10a-a9fd-a22f-167b-ee26f011fd9c' as SessionId;
const failed = (statusCode: number, body: unknown) =>
  Object.assign(new Error('failed'), { response: { statusCode, body } });

describe('consul format', () => {
  it('keeps all digits of an index, both ways', () => {
    const index = '18446744073709551615';
    const answer = parseJson(`[{"Key":"p/a","Value":null,"Flags":0,"ModifyIndex":${index}}]`);
    assert.deepEqual(entriesOf(answer, 'p/'), [{ key: 'a', value: '', index, session: null }]);
    const body = JSON.stringify(toConsul([{ kind: 'compare-and-set', key: 'a', value: 'ä', index }], 'p/'));
    assert.equal(body, `[{"KV":{"Verb":"cas","Key":"p/a","Value":"w6Q=","Index":${index}}}]`);
  });

  it('makes a key that is not there with index 0', () => {
    const body = JSON.stringify(toConsul([{ kind: 'compare-and-set', key: 'a', value: '', index: null }], ''));
    assert.equal(body, '[{"KV":{"Verb":"cas","Key":"a","Value":"","Index":0}}]');
  });

  it('checks the index before it deletes, and finds its way back to the operation', () => {
    const operations: readonly Operation[] = [
      { kind: 'check-session', key: 'a', session },
      { kind: 'compare-and-delete', key: 'b', index: '7' },
      { kind: 'set', key: 'c', value: '' },
      { kind: 'compare-and-delete', key: 'd', index: '8' },
    ];
    const verbs = toConsul(operations, '').map(({ KV }) => KV.Verb);
    assert.deepEqual(verbs, ['check-session', 'check-index', 'delete', 'set', 'check-index', 'delete']);
    const positions = [0, 1, 2, 3, 4, 5].map((OpIndex) => {
      const outcome = conflictOf({ Errors: [{ OpIndex, What: 'x' }] }, operations);
      return outcome.kind === 'conflict' ? outcome.operation : null;
    });
    assert.deepEqual(positions, [0, 1, 1, 2, 3, 3]);
  });

  it('names the first of several conflicts', () => {
    const operations: readonly Operation[] = ['a', 'b', 'c'].map((key) => ({ kind: 'set', key, value: '' }));
    const answer = parseJson('{"Errors":[{"OpIndex":2,"What":"later"},{"OpIndex":1,"What":"first"}]}');
    assert.deepEqual(conflictOf(answer, operations), { kind: 'conflict', operation: 1, reason: 'first' });
  });

  it('answers the newest index of what was written and not deleted after', () => {
    const answer = parseJson(
      '{"Results":[{"KV":{"Key":"p/a","ModifyIndex":5}},{"KV":{"Key":"p/b","ModifyIndex":9}},{"KV":{"Key":"p/a","ModifyIndex":9}}]}',
    );
    const operations: readonly Operation[] = [
      { kind: 'check-index', key: 'a', index: '5' },
      { kind: 'set', key: 'b', value: '' },
      { kind: 'set', key: 'a', value: '' },
      { kind: 'delete', key: 'b' },
    ];
    assert.deepEqual(outcomeOf(answer, operations, 'p/'), { kind: 'done', indexes: new Map([['a', '9']]) });
  });

  it('leaves out keys of others', () => {
    const foreign = ['p/', 'p/folder/', 'p/ä'].map((Key) => ({ Key, Value: 'x', ModifyIndex: '1' }));
    assert.deepEqual(entriesOf(foreign, 'p/'), []);
  });

  it('tells what may pass from what never will', () => {
    assert.equal(toFlockError(new Error('connect ECONNREFUSED'), 'http://x').code, 'store-unavailable');
    assert.equal(toFlockError(failed(500, 'No cluster leader'), 'http://x').code, 'store-unavailable');
    assert.match(toFlockError(failed(403, 'Permission denied'), 'http://x').message, /token/);
    assert.equal(toFlockError(failed(413, 'Request body too large'), 'http://x').code, 'invalid-request');
    assert.equal(toFlockError(failed(500, "Invalid Session TTL '1'"), 'http://x').code, 'invalid-request');
  });

  it('starts a watch anew when the index goes backwards, and never with 0', () => {
    assert.equal(nextIndex('0', '18446744073709551614'), '18446744073709551614');
    assert.equal(nextIndex('18446744073709551615', '18446744073709551614'), '0');
    assert.equal(nextIndex('0', '0'), '1');
  });
});
