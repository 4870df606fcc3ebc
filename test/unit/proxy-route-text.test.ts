import assert from 'node:assert/strict';
import { formatEntrance, formatLinkSource, parseServiceRoute } from '../../proxy/model/route-text.ts';
import { refuses } from '../support/refuses.ts';

describe('the text of a route', () => {
  it('is read with service and port right of the arrow', () => {
    assert.deepEqual(parseServiceRoute('https://*.Example.com/shop/->web:8080 certificate=shop'), {
      service: 'web',
      entrance: { protocol: 'https', host: '*.example.com', port: 443, path: '/shop', certificate: 'shop' },
      targetPort: 8080,
    });
    const { entrance } = parseServiceRoute('tcp://[2001:DB8::1]:53 -> dns:53 proxy-protocol=v2');
    assert.deepEqual(entrance, { protocol: 'tcp', address: '2001:db8::1', port: 53, proxyProtocol: true });
  });

  for (const [text, words] of [
    ['http://a', /one arrow/],
    ['http://a -> ', /one arrow/],
    ['http://a -> b:1 -> c:2', /one arrow/],
    ['http://a -> 8080', /SERVICE:PORT, such as web:8080/],
    ['http://a -> web:80:81', /SERVICE:PORT/],
    ['http://a -> Web:80', /service name/],
    ['http://a -> web:0', /invalid port/],
    ['http://a -> web:80 certificate=x', /certificate=NAME for https/],
    ['http://a b -> web:80', /invalid host/],
    ['ftp://a -> web:80', /no address/],
    ['tcp://example.com:80 -> web:80', /knows no host names/],
  ] as const)
    it(`refuses "${text}"`, () => {
      const code = /service name|invalid port|invalid host/.test(String(words)) ? 'invalid-name' : 'invalid-option';
      assert.match(refuses(() => parseServiceRoute(text), code).message, words);
    });

  it('comes out as people write it, and reads the same again', () => {
    for (const address of [
      'http://www.example.com',
      'http://www.example.com:8080/shop',
      'http://',
      'https://*.example.com/a/b',
      'http://[2001:db8::1]',
      'tls://db.example.com:5433',
      'tcp://:3306',
      'tcp://192.0.2.1:3306',
      'tcp://[2001:db8::1]:53',
    ]) {
      const certificate = address.startsWith('https') ? ' certificate=x' : '';
      const { entrance } = parseServiceRoute(`${address} -> web:80${certificate}`);
      assert.equal(formatEntrance(entrance), address);
    }
  });

  it('of a link has the name only where there is one', () => {
    assert.equal(formatLinkSource(null, 80), '80');
    assert.equal(formatLinkSource('db' as never, 80), 'db:80');
  });
});
