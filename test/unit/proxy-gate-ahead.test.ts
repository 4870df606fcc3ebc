import assert from 'node:assert/strict';
import { createGate } from '../../proxy/gate/gate.ts';
import type { GateLimits } from '../../proxy/gate/limits.ts';
import { freePort, httpBackend, open, soon, tableOf } from '../contract/gate-support.ts';

/** The gate alone: HAProxy gives it one request after the other. */
describe('requests that a client sends ahead of the answers', () => {
  const ends: (() => unknown)[] = [];
  const later = (end: () => unknown) => void ends.push(end);
  afterEach(async () => {
    for (const end of ends.splice(0).toReversed()) await end();
  });

  /** A paused service that answers with the path, and a connection to it. */
  async function held(limits: Partial<GateLimits> = {}) {
    const paths: string[] = [];
    const backend = await httpBackend({ later }, (req, res) => {
      paths.push(req.url ?? '');
      res.end(req.url);
    });
    const port = await freePort();
    const gate = createGate({ limits });
    later(() => gate.close(0));
    await gate.apply(tableOf({ [`http://a.example:${port} -> 1`]: 'web' }, { web: [backend.port] }));
    gate.pause('web', { deadlineMs: 60_000 });
    const client = await open(port);
    later(() => client.destroy());
    return { gate, client, paths, port };
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

  it('count with what is kept of their bodies, not with what they might have', async () => {
    const { gate, client, paths } = await held();
    const body = 'Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n';
    client.resume().write(
      pathsOf(20)
        .map((path) => `PUT ${path} HTTP/1.1\r\nHost: a.example\r\n${body}`)
        .join(''),
    );
    await soon('the first is held', () => gate.inFlight('web').held === 1);
    gate.release('web', null);
    await soon('all are answered', () => paths.length === 20);
    assert.deepEqual(paths, pathsOf(20));
    gate.pause('web', { deadlineMs: 60_000 });
    const large = `Content-Length: 50000\r\n\r\n${'x'.repeat(50_000)}`;
    client.write(
      pathsOf(20)
        .map((path) => `PUT ${path} HTTP/1.1\r\nHost: a.example\r\n${large}`)
        .join(''),
    );
    await soon('the connection is closed', () => client.closed);
  });

  it('are limited over all connections, and forgotten with them', async () => {
    const { gate, client, paths, port } = await held({ aheadCountMax: 30 });
    client.resume().write(requests(20));
    await soon('the first is held', () => gate.inFlight('web').held === 1);
    const second = await open(port);
    later(() => second.destroy());
    second.resume().write(requests(20));
    await soon('the second is closed', () => second.readableEnded);
    const third = await open(port);
    later(() => third.destroy());
    third.resume().write(requests(10));
    await soon('the third is held', () => gate.inFlight('web').held === 2);
    gate.release('web', null);
    await soon('all are answered', () => paths.length === 30);
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
