import assert from 'node:assert/strict';
import { hasCode } from '../../../controller/model/errors.ts';
import { rejects } from '../../support/refuses.ts';
import { until } from '../../support/until.ts';
import { done, type StoreContext, set } from './context.ts';

export function faultContract({ bench, here, there, prefix, session, watched }: StoreContext): void {
  it('says store-unavailable in bounded time, and works again after', async () => {
    const at = prefix();
    const mine = await session();
    await done(here().transact([set(`${at}a`, '1')]));
    await bench().fail();
    try {
      const start = performance.now();
      const calls: Promise<unknown>[] = [
        here().transact([set(`${at}a`, '2')]),
        there().transact([set(`${at}b`, '2')]),
        here().createSession({ name: 'a test', ttlMs: 60_000, lockDelayMs: 0 }),
        here().renewSession(mine),
        here().destroySession(mine),
      ];
      if (bench().readsFail) calls.push(here().get(`${at}a`, { fresh: true }), there().list(at));
      await Promise.all(calls.map((call) => rejects(call, 'store-unavailable')));
      assert.ok(performance.now() - start < bench().faultMsMax, 'it took too long');
    } finally {
      await bench().mend();
    }
    await until('it works again', 30_000, async () => {
      try {
        return await here().transact([set(`${at}after`, '3')]);
      } catch (error) {
        if (hasCode(error, 'store-unavailable')) return undefined;
        throw error;
      }
    });
    assert.equal((await there().get(`${at}after`, { fresh: true }))?.value, '3');
    // Not done, done meanwhile, or still to be done.
    assert.match((await there().get(`${at}a`, { fresh: true }))?.value ?? '', /^[12]$/);
  });

  it('goes on with a watch after the store was away', async () => {
    const at = prefix();
    const faults: unknown[] = [];
    await done(here().transact([set(`${at}a`, '1')]));
    const seen = watched(there(), at, (error) => faults.push(error));
    await seen.until('it has begun', () => true);
    await bench().fail();
    try {
      if (bench().readsFail) {
        await until('the watch has noticed', 30_000, () => (faults.length > 0 ? true : undefined));
        assert.ok(faults.every((fault) => hasCode(fault, 'store-unavailable')));
      }
    } finally {
      await bench().mend();
    }
    await until('a change is seen', 30_000, async () => {
      await here()
        .transact([set(`${at}a`, '2')])
        .catch(() => {});
      return seen.lists.at(-1)?.[0]?.value === '2' ? true : undefined;
    });
  });

  it('begins a watch while the store is away', async () => {
    const at = prefix();
    await done(here().transact([set(`${at}a`, '1')]));
    await bench().fail();
    const seen = watched(there(), at);
    await bench().mend();
    await seen.until('the key is seen', ([entry]) => entry?.value === '1');
  });
}
