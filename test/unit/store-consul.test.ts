import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createConsulStore } from '../../controller/store/consul.ts';
import type { SessionId, Store } from '../../controller/store/store.ts';
import { rejects } from '../support/refuses.ts';
import { until } from '../support/until.ts';

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

const entry = (index: string, value: string) =>
  `[{"Key":"flock/a","Value":"${Buffer.from(value).toString('base64')}","ModifyIndex":${index}}]`;
const json =
  (body: string, index = '1'): Answer =>
  (_, response) => {
    response.writeHead(200, { 'content-type': 'application/json', 'x-consul-index': index }).end(body);
  };

describe('consul store: answers of a faulty agent', () => {
  const ends: (() => Promise<void>)[] = [];
  afterEach(async () => {
    for (const end of ends.splice(0)) await end();
  });

  /** A store whose agent answers so; `requests` are the addresses that were asked for. */
  async function open(
    answer: Answer,
    timeoutMs = 5_000,
  ): Promise<{ readonly store: Store; readonly requests: string[] }> {
    const requests: string[] = [];
    const server = createServer((request, response) => {
      requests.push(request.url ?? '');
      request.resume();
      answer(request, response);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    const port = typeof address === 'object' ? address?.port : 0;
    const settings = { address: `http://127.0.0.1:${port}/`, prefix: 'flock/', token: 'secret', timeoutMs };
    const store = createConsulStore({ ...settings, watchWaitMs: 100 });
    ends.push(async () => {
      await store.close();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    });
    return { store, requests };
  }

  const faults: Readonly<Record<string, Answer>> = {
    'no answer': () => {},
    'half an answer': (_, response) => response.writeHead(200, { 'content-length': '100' }).write('[{"Key"'),
    'an answer that is cut short': (_, response) => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' }).write('[{"Key"');
      setTimeout(() => response.destroy(), 20);
    },
    'a closed connection': (request) => request.socket.destroy(),
    'another program': (_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<html>'),
    'JSON of another program': json('{"hello":"world"}'),
    'JSON that is none': json('[{'),
    'an empty answer': (_, response) => response.writeHead(200).end(),
    'an empty answer of Consul': (_, response) => response.writeHead(200, { 'x-consul-index': '1' }).end(),
    "another program's not found": (_, response) => response.writeHead(404).end('not found'),
    'no leader': (_, response) => response.writeHead(500).end('No cluster leader'),
    'a conflict without words': (_, response) => response.writeHead(409).end('conflict'),
    'a refused token': (_, response) => response.writeHead(403).end('Permission denied'),
  };
  for (const [name, answer] of Object.entries(faults)) {
    it(`takes ${name} for an unavailable store, in time`, async () => {
      const { store } = await open(answer, 50);
      await rejects(store.get('a'), 'store-unavailable');
      await rejects(store.list('p/', { fresh: true }), 'store-unavailable');
      await rejects(store.transact([{ kind: 'set', key: 'a', value: '' }]), 'store-unavailable');
      await rejects(store.renewSession('11111111-2222-3333-4444-555555555555' as SessionId), 'store-unavailable');
      await rejects(store.createSession({ name: '', ttlMs: 10_000, lockDelayMs: 0 }), 'store-unavailable');
    });
  }

  it('says where nothing listens', async () => {
    const { store } = await open(json('[]'));
    await ends.splice(0)[0]?.();
    await rejects(store.get('a'), 'store-unavailable');
    const nobody = createConsulStore({ address: 'http://127.0.0.1:1', prefix: '' });
    assert.match((await rejects(nobody.get('a'), 'store-unavailable')).message, /127\.0\.0\.1:1.*ECONNREFUSED/);
    await nobody.close();
  });

  it('asks for consistent answers when they must be fresh, and sends its token', async () => {
    const tokens: unknown[] = [];
    const { store, requests } = await open((request, response) => {
      tokens.push(request.headers['x-consul-token']);
      json(entry('12', 'x'))(request, response);
    });
    await store.get('a');
    await store.get('a', { fresh: true });
    await store.list('p/', { fresh: true });
    assert.deepEqual(requests, [
      '/v1/kv/flock%2Fa',
      '/v1/kv/flock%2Fa?consistent=1',
      '/v1/kv/flock%2Fp%2F?recurse=true&consistent=1',
    ]);
    assert.deepEqual(new Set(tokens), new Set(['secret']));
  });

  it('watches from the start again when the index goes backwards, and after a fault', async () => {
    const script = [
      json(entry('50', 'one'), '50'),
      json(entry('30', 'restored'), '30'),
      json(entry('30', 'restored'), '30'),
      faults['no leader'],
      json(entry('31', 'after'), '31'),
    ];
    const { store, requests } = await open((request, response) => script.shift()?.(request, response));
    const ending = new AbortController();
    const values: string[] = [];
    const told: unknown[] = [];
    const watching = (async () => {
      for await (const [first] of store.watch('', ending.signal, (fault) => told.push(fault))) {
        values.push(first?.value ?? '');
      }
    })();
    await until('the watch has seen all', 5_000, () => (values.at(-1) === 'after' ? true : undefined));
    ending.abort();
    await watching;
    assert.deepEqual(values, ['one', 'restored', 'after']);
    assert.equal(told.length, 1);
    const indexes = requests.slice(0, 5).map((url) => /index=(\d+)/.exec(url)?.[1] ?? 'start');
    assert.deepEqual(indexes, ['start', '50', 'start', '30', 'start']);
  });

  it('asks a churning server at most four times a second', async () => {
    let index = 0;
    const { store, requests } = await open((request, response) => {
      index += 1;
      json(entry(String(index), String(index)), String(index))(request, response);
    });
    const ending = AbortSignal.timeout(900);
    for await (const _ of store.watch('', ending));
    assert.ok(requests.length >= 2 && requests.length <= 6, String(requests.length));
  });
});
