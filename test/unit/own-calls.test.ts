import assert from 'node:assert/strict';
import { FlockError } from '../../controller/model/errors.ts';
import type { Docker } from '../../controller/program/docker.ts';
import { createOwnCalls } from '../../controller/program/own-calls.ts';

describe('what a controller asks of Docker', () => {
  it('stops and removes a container when what it was to start has been answered', async () => {
    const asked: string[] = [];
    const starts = new Map<string, PromiseWithResolvers<void>>();
    const start = (id: string) => {
      asked.push(`start ${id}`);
      const pending = Promise.withResolvers<void>();
      starts.set(id, pending);
      return pending.promise;
    };
    const note = (what: string) => async (id: string) => void asked.push(`${what} ${id}`);
    const engine = { start, stop: note('stop'), remove: note('remove') } as Partial<Docker> as Docker;
    const own = createOwnCalls(engine, { stop: (_id, ask) => ask() });
    const turn = () => new Promise((resolve) => setImmediate(resolve));

    const first = own.start('a');
    const firstPending = starts.get('a');
    const second = assert.rejects(own.start('a'), /no answer/);
    const stopped = own.stop('a', 1);
    const removed = own.remove('a');
    await own.stop('b', 1);
    firstPending?.resolve();
    await first;
    await turn();
    assert.deepEqual(asked, ['start a', 'start a', 'stop b']);
    starts.get('a')?.reject(new FlockError('docker-failed', 'no answer'));
    await Promise.all([second, stopped, removed]);
    assert.deepEqual(asked.slice(3).toSorted(), ['remove a', 'stop a']);
    await own.stop('a', 1);
    assert.equal(asked.at(-1), 'stop a');
  });
});
