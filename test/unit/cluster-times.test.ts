import assert from 'node:assert/strict';
import { requireTimes } from '../../controller/cluster/times.ts';
import { FlockError } from '../../controller/model/errors.ts';
import type { SessionId, Store } from '../../controller/store/store.ts';
import { rejects } from '../support/refuses.ts';

describe('the times of a cluster', () => {
  const storeThat = (createSession: Store['createSession']) => {
    const ended: SessionId[] = [];
    const store = {
      createSession,
      destroySession: async (id: SessionId) => void ended.push(id),
    } as Partial<Store> as Store;
    return { store, ended };
  };

  it('are tried on the store, and nothing of the trial stays', async () => {
    const asked: number[] = [];
    const { store, ended } = storeThat(async ({ ttlMs }) => {
      asked.push(ttlMs);
      return 'trial' as SessionId;
    });
    await requireTimes(store, 'default');
    await requireTimes(store, 'fast');
    assert.deepEqual(asked, [10_000, 2_000]);
    assert.deepEqual(ended, ['trial', 'trial']);
  });

  it('are refused where the store does not allow them, with the way out', async () => {
    const { store } = storeThat(async () => {
      throw new FlockError('invalid-request', 'Invalid Session TTL');
    });
    assert.match((await rejects(requireTimes(store, 'fast'), 'invalid-option')).message, /session_ttl_min = "2s"/);
  });

  it('say when the store does not answer', async () => {
    const { store } = storeThat(async () => {
      throw new FlockError('store-unavailable', 'no leader');
    });
    await rejects(requireTimes(store, 'fast'), 'store-unavailable');
  });
});
