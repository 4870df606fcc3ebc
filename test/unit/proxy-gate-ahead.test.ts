import assert from 'node:assert/strict';
import { createGate } from '../../proxy/gate/gate.ts';
import { freePort, httpBackend, open, soon, tableOf } from '../contract/gate-support.ts';

/** The gate alone: HAProxy gives it one request after the other. */
describe('requests that a client sends ahead of the answers', () => {
  const ends: (() => unknown)[] = [];
  const later = (end: () => unknown) => void ends.push(end);
  afterEach(async () => {
    for (const end of ends.splice(0).toReversed()) await end();
  });

  /** A paused service that answers with the path, and a connection to it. */
  async function held() {
    const paths: string[] = [];
    const backend = await httpBackend({ later }, (req, res) => {
      paths.push(req.url ?? '');
      res.end(req.url);
    });
    const port = await freePort();
    const gate = createGate();
    later(() => gate.close(0));
    await gate.apply(tableOf({ [`http://a.example:${port} -> 1`]: 'web' }, { web: [backend.port] }));
    gate.pause('web', { deadlineMs: 60_000 });
    const client = await open(port);
    later(() => client.destroy());
    return { gate, client, paths };
  }
  const pathsOf = (count: number) => Array.from({ length: count }, (_, index) => `/${index}`);
  const requests = (count: number) =>
    pathsOf(count)
      .map((path) => `GET ${path} HTTP/1.1\r\nHost: a.example\r\n\r\n`)
      .join('');

  it('are answered one after the other, each once', async () => {
    const { gate, client, paths } = await held();
    client.resume().write(requests(100));
    await soon('the first is held', () => gate.inFlight('web').held === 1);
    gate.release('web', null);
    await soon('all are answered', () => paths.length === 100);
    assert.deepEqual(paths, pathsOf(100));
  });

  it('take no more memory than one connection may, whatever comes', async () => {
    const { gate, client, paths } = await held();
    client.resume().write(requests(5_000));
    await soon('the connection is closed', () => client.closed);
    await soon('nothing of it is held', () => gate.inFlight('web').held === 0);
    gate.release('web', null);
    assert.deepEqual(paths, []);
  });
});
