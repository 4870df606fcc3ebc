import assert from 'node:assert/strict';
import { parseLinkText, parseRouteText, readLabels } from '../../proxy/model/labels.ts';
import { refuses } from '../support/refuses.ts';

describe('container labels of the proxy', () => {
  it('declare a service with routes and links', () => {
    const { declared, problems } = readLabels(
      {
        'flock.service': 'web',
        'flock.balance': 'least-connections',
        'flock.route': 'http://WWW.Example.com. -> 8080',
        'flock.route.shop': 'https://*.example.com:8443/shop/ -> 8081 certificate=shop',
        'flock.link': '3306 -> mysql:3307',
        'flock.link.cache': ' cache:6379->redis:6379 ',
        'flock.replicas': '2',
        'com.docker.compose.project': 'x',
      },
      ['replicas'],
    );
    assert.deepEqual(problems, []);
    assert.deepEqual(declared, {
      service: 'web',
      balance: 'least-connections',
      stateful: false,
      routes: [
        {
          label: 'flock.route',
          entrance: { protocol: 'http', host: 'www.example.com', port: 80, path: '/' },
          targetPort: 8080,
        },
        {
          label: 'flock.route.shop',
          entrance: { protocol: 'https', host: '*.example.com', port: 8443, path: '/shop', certificate: 'shop' },
          targetPort: 8081,
        },
      ],
      links: [
        { label: 'flock.link', host: 'mysql', port: 3306, service: 'mysql', targetPort: 3307 },
        { label: 'flock.link.cache', host: 'cache', port: 6379, service: 'redis', targetPort: 6379 },
      ],
    });
  });

  it('know every protocol', () => {
    const entrance = (text: string) => parseRouteText(text).entrance;
    assert.deepEqual(entrance('http://:8080/a -> 1'), { protocol: 'http', host: '*', port: 8080, path: '/a' });
    assert.deepEqual(entrance('http://[2001:DB8:0::1] -> 1'), {
      protocol: 'http',
      host: '2001:db8::1',
      port: 80,
      path: '/',
    });
    assert.deepEqual(entrance('https://*.example.com -> 1'), {
      protocol: 'https',
      host: '*.example.com',
      port: 443,
      path: '/',
      certificate: 'example.com',
    });
    const plain = { proxyProtocol: false };
    const tls = { protocol: 'tls', host: 'db.example.com', port: 443 };
    assert.deepEqual(entrance('tls://db.example.com -> 1'), { ...tls, ...plain });
    assert.deepEqual(entrance('tls://db.example.com -> 1 proxy-protocol=v2'), { ...tls, proxyProtocol: true });
    const tcp = { protocol: 'tcp', address: '*', port: 3306, ...plain };
    assert.deepEqual(entrance('tcp://:3306 -> 1'), tcp);
    assert.deepEqual(entrance('tcp://:3306 -> 1 proxy-protocol=v2'), { ...tcp, proxyProtocol: true });
    assert.deepEqual(entrance('tcp://192.0.2.1:3306 -> 1'), { ...tcp, address: '192.0.2.1' });
    assert.deepEqual(entrance('tcp://[::1]:3306 -> 1'), { ...tcp, address: '::1' });
  });

  it('are refused with what is wrong', () => {
    const routes: Readonly<Record<string, RegExp>> = {
      '': /one arrow/,
      'http://a': /one arrow/,
      'http://a -> 1 -> 2': /one arrow/,
      'ftp://a -> 1': /is no address/,
      'a -> 1': /is no address/,
      'https://* -> 1': /certificate=NAME/,
      'https://a -> 1 certificate=../x': /is no name of a certificate/,
      'https://a -> 1 certificate=a certificate=b': /once/,
      'http://a -> 1 certificate=a': /certificate=NAME for https/,
      'http://a -> 1 proxy-protocol=v2': /for tls and tcp/,
      'tcp://:5 -> 1 proxy-protocol=v1': /proxy-protocol=v2/,
      'http://a -> 1 balance=x': /is no option/,
      'tcp://a:1 -> 1': /knows no host names/,
      'tcp://[a]:1 -> 1': /no IP address/,
      'tcp:// -> 1': /needs a port/,
      'tls://a/b -> 1': /no paths/,
    };
    for (const [text, expected] of Object.entries(routes))
      assert.match(refuses(() => parseRouteText(text), 'invalid-option').message, expected, text);
    for (const text of [
      'http://a -> 0',
      'http://a -> 65536',
      'http://a -> x',
      'http://a:0 -> 1',
      'http://a: -> 1',
      'http://a..b -> 1',
      'http://a*b -> 1',
      'http://a/../b -> 1',
      'http://a//b -> 1',
      'http://a/b?c -> 1',
      'http://ü -> 1',
      'http://a_b.c-.d -> 1',
      `http://a${'/b'.repeat(17)} -> 1`,
    ])
      refuses(() => parseRouteText(text), 'invalid-name');
    for (const text of ['3306 -> mysql', '3306 -> :1', 'a b -> mysql:1', '*.a:1 -> mysql:1'])
      refuses(() => parseLinkText(text), 'invalid-option');
    for (const text of ['0 -> mysql:1', '1 -> MySQL:1', '1 -> mysql:x', 'a!:1 -> mysql:1'])
      refuses(() => parseLinkText(text), 'invalid-name');
  });

  it('report each bad label by its name and keep the good ones', () => {
    const { declared, problems } = readLabels({
      'flock.service': 'web',
      'flock.route': 'http://a -> 1',
      'flock.route.b': 'http://b',
      'flock.route.b.c': 'http://b -> 1',
      'flock.routes': 'http://a -> 1',
      'flock.balance': 'random',
      'flock.stateful': 'yes',
    });
    assert.deepEqual(
      declared.routes.map(({ label }) => label),
      ['flock.route'],
    );
    assert.equal(declared.balance, 'round-robin');
    assert.deepEqual(
      problems.map(({ label }) => label),
      ['flock.balance', 'flock.route.b', 'flock.route.b.c', 'flock.routes', 'flock.stateful'],
    );
    assert.match(
      problems.find(({ label }) => label === 'flock.routes')?.text ?? '',
      /there is no label flock.routes: use flock.service/,
    );
    assert.match(problems[0]?.text ?? '', /round-robin or least-connections/);
  });

  it('need a service for routes, not for links', () => {
    const { declared, problems } = readLabels({ 'flock.route': 'http://a -> 1', 'flock.link': '1 -> b:1' });
    assert.deepEqual([declared.routes.length, declared.links.length], [0, 1]);
    assert.match(problems[0]?.text ?? '', /flock\.service=web/);
    assert.equal(readLabels({ 'flock.service': 'Web', 'flock.route': 'http://a -> 1' }).problems.length, 1);
    assert.equal(readLabels({ 'flock.service': '__proto__' }).problems.length, 1);
  });
});
