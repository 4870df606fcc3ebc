import assert from 'node:assert/strict';
import { encodeHeader, parseHeader } from '../../proxy/gate/proxy-protocol.ts';

describe('PROXY protocol v2', () => {
  const v4 = { client: { address: '192.0.2.7', port: 40_001 }, server: { address: '198.51.100.9', port: 5432 } };

  it('writes the bytes of its document', () => {
    const wanted = '0d0a0d0a000d0a515549540a' + '21' + '11' + '000c' + 'c0000207' + 'c6336409' + '9c41' + '1538';
    assert.equal(encodeHeader(v4).toString('hex'), wanted);
  });

  it('reads what it has written, of both families', () => {
    const v6 = { client: { address: '2001:db8::1', port: 1 }, server: { address: 'fe80::a:b', port: 65_535 } };
    for (const ends of [v4, v6]) {
      const bytes = encodeHeader(ends);
      assert.deepEqual(parseHeader(Buffer.concat([bytes, Buffer.from('more')])), {
        kind: 'header',
        bytes: bytes.length,
        ends,
      });
    }
  });

  it('writes one family where the ends have two', () => {
    const parsed = parseHeader(encodeHeader({ ...v4, server: { address: '2001:db8::1', port: 443 } }));
    assert.ok(parsed.kind === 'header' && parsed.ends?.server.address === '2001:db8::1');
  });

  it('says that it knows nobody', () => {
    const bytes = encodeHeader(null);
    assert.deepEqual(parseHeader(bytes), { kind: 'header', bytes: bytes.length, ends: null });
  });

  it('waits for the rest, and takes nothing else for a header', () => {
    const bytes = encodeHeader(v4);
    for (let length = 0; length < bytes.length; length += 1)
      assert.equal(parseHeader(bytes.subarray(0, length)).kind, 'more', `${length} bytes`);
    const others = ['GET / HTTP/1.1\r\n', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n', '\u0016\u0003\u0001'];
    for (const text of others) assert.equal(parseHeader(Buffer.from(text, 'latin1')).kind, 'none', text);
    const changed = (at: number, byte: number) => {
      const copy = Buffer.from(bytes);
      copy[at] = byte;
      return parseHeader(copy).kind;
    };
    assert.equal(changed(12, 0x11), 'none');
    assert.equal(changed(14, 0xff), 'none');
    assert.equal(changed(15, 4), 'none');
  });
});
