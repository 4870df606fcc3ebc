import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { connect } from 'node:tls';
import { choose, renewBackends } from '../../proxy/gate/backends.ts';
import { parseClientHello } from '../../proxy/gate/client-hello.ts';
import { requestHeaders, requestProblem, responseHeaders } from '../../proxy/gate/headers.ts';
import { hostOf, requestTarget } from '../../proxy/model/authority.ts';

describe('the host of a request', () => {
  it('is found however it is written', () => {
    const hosts: Readonly<Record<string, string | null>> = {
      'a.example': 'a.example',
      'A.Example:8080': 'a.example',
      'a.example.': 'a.example',
      'a.example.:80': 'a.example',
      'a.example:': 'a.example',
      '192.0.2.1:80': '192.0.2.1',
      '[::1]:80': '::1',
      '[2001:DB8:0:0::1]': '2001:db8::1',
      a_b: 'a_b',
      '': null,
      '::1': null,
      'a:b': null,
      'a:99999': null,
      'a@b': null,
      'a/b': null,
      'a, b': null,
      'a..b': null,
      '.a': null,
      '*.a': null,
      '[::1': null,
      '[zz]': null,
    };
    for (const [text, host] of Object.entries(hosts)) assert.equal(hostOf(text), host, text);
  });

  it('is that of an absolute target, and the path stays as it is', () => {
    assert.deepEqual(requestTarget('/a//b?c=//d', 'X:1'), { host: 'x', authority: 'X:1', path: '/a//b?c=//d' });
    assert.deepEqual(requestTarget('http://Y.example:2/p?q', 'x'), {
      host: 'y.example',
      authority: 'Y.example:2',
      path: '/p?q',
    });
    assert.deepEqual(requestTarget('http://y?q', 'x'), { host: 'y', authority: 'y', path: '/?q' });
    assert.deepEqual(requestTarget('http://y', 'x'), { host: 'y', authority: 'y', path: '/' });
    assert.deepEqual(requestTarget('*', 'x'), { host: 'x', authority: 'x', path: '*' });
    assert.deepEqual(requestTarget('/', undefined), { host: '', authority: '', path: '/' });
    for (const url of ['a', 'ftp://x/', 'http:///a', 'http://u@x/', '/a#b', ''])
      assert.equal(requestTarget(url, 'x'), null, url);
  });
});

describe('headers', () => {
  const client = { address: '::ffff:192.0.2.1', protocol: 'http', authority: 'a', isTrusted: false } as const;

  it('of strangers are replaced, those of our own proxies kept', () => {
    const sent = { 'x-forwarded-for': '6.6.6.6', forwarded: 'for=6.6.6.6', 'x-forwarded-host': 'b', cookie: 'a=1' };
    const kept = requestHeaders(sent, client);
    assert.equal(kept['x-forwarded-for'], '192.0.2.1');
    assert.equal(kept['forwarded'], 'for=192.0.2.1;host="a";proto=http');
    assert.equal(kept['cookie'], 'a=1');
    assert.equal(
      requestHeaders({}, { ...client, address: '2001:db8::1' })['forwarded'],
      'for="[2001:db8::1]";host="a";proto=http',
    );
    assert.equal(requestHeaders(sent, { ...client, isTrusted: true })['x-forwarded-for'], '6.6.6.6');
  });

  it('that frame the message stay, whatever Connection lists', () => {
    const kept = requestHeaders({ connection: 'Content-Length, host, x-a', 'content-length': '3', 'x-a': '1' }, client);
    assert.equal(kept['content-length'], '3');
    assert.equal(kept['host'], 'a');
    assert.equal(kept['x-a'], undefined);
    assert.deepEqual(responseHeaders(['Connection', 'x-a', 'X-A', '1', 'Content-Length', '3', 'TE', 'x'], false), [
      'Content-Length',
      '3',
    ]);
  });

  it('that say two things are refused', () => {
    const problem = (headers: Record<string, string>, version = '1.1', raw = Object.entries(headers).flat()) =>
      requestProblem(raw, headers, version)?.status;
    assert.equal(problem({ host: 'a', 'transfer-encoding': 'Chunked' }), undefined);
    assert.equal(problem({ host: 'a', 'transfer-encoding': 'gzip, chunked' }), 501);
    assert.equal(problem({ host: 'a', 'transfer-encoding': 'chunked' }, '1.0'), 400);
    assert.equal(problem({ host: 'a', 'transfer-encoding': 'chunked', 'content-length': '1' }), 400);
    assert.equal(problem({ host: 'a' }, '0.9'), 505);
    assert.equal(problem({ host: 'a' }, '1.1', ['Host', 'a', 'HOST', 'b']), 400);
  });
});

describe('backends', () => {
  const endpoints = ['a', 'b', 'c'].map((id) => ({ id, host: '192.0.2.1', port: 1 }));

  it('take turns, those that failed last', () => {
    const backends = renewBackends(undefined, endpoints);
    const next = () => choose(backends, 'round-robin', [], 0)?.endpoint.id;
    assert.deepEqual([next(), next(), next(), next()], ['a', 'b', 'c', 'a']);
    for (const backend of backends.all.slice(0, 2)) backend.coolUntilMs = 1;
    assert.deepEqual([next(), next()], ['c', 'c']);
    for (const backend of backends.all) backend.coolUntilMs = 1;
    assert.ok(next() !== undefined);
    assert.equal(choose(backends, 'round-robin', backends.all, 0), null);
  });

  it('are chosen by what they serve, and stay the same over tables', () => {
    const backends = renewBackends(undefined, endpoints);
    for (const [index, backend] of backends.all.entries()) backend.active = 3 - index;
    assert.equal(choose(backends, 'least-connections', [], 0)?.endpoint.id, 'c');
    let retired = 0;
    for (const backend of backends.all) backend.retire = () => (retired += 1);
    const renewed = renewBackends(backends, endpoints.slice(1));
    assert.equal(renewed.all[0], backends.all[1]);
    assert.equal(retired, 1);
  });
});

describe('the server name in a TLS hello', () => {
  it('is read from any number of pieces, and from nothing else', async () => {
    const hello = await helloFor('Db.Example');
    assert.deepEqual(parseClientHello(hello), { kind: 'name', name: 'db.example' });
    for (let length = 0; length < hello.length; length += 1)
      assert.equal(parseClientHello(hello.subarray(0, length)).kind, 'more', `${length} bytes`);
    // The same in two records.
    const body = hello.subarray(5);
    const record = (part: Buffer) =>
      Buffer.concat([Buffer.from([22, 3, 1, part.length >> 8, part.length & 255]), part]);
    const split = Buffer.concat([record(body.subarray(0, 3)), record(body.subarray(3))]);
    assert.deepEqual(parseClientHello(split), { kind: 'name', name: 'db.example' });
    assert.equal(parseClientHello(Buffer.from('GET / HTTP/1.1\r\n')).kind, 'none');
    assert.equal(parseClientHello(await helloFor(null)).kind, 'none');
    for (let index = 5; index < hello.length; index += 1) {
      const damaged = Buffer.from(hello);
      damaged[index] = 255;
      parseClientHello(damaged);
    }
  });
});

function helloFor(servername: string | null): Promise<Buffer> {
  return new Promise((resolve) => {
    const wire = new Duplex({
      read() {},
      write(piece, _encoding, done) {
        resolve(piece);
        done();
      },
    });
    connect({ socket: wire, ...(servername === null ? {} : { servername }) }).on('error', () => {});
  });
}
