import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Context, freePort, open, type ProxyUnderTest, tableOf, talk, tcpBackend } from './gate-support.ts';

/**
 * Requests of which two readers could make different messages. Each must be refused, or reach the service as exactly one request,
 * framed beyond doubt. `smuggled` is what must never be taken for a request.
 */
const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n';
const chunk = `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`;
const post = 'POST /outer HTTP/1.1\r\nHost: a\r\n';

export const attacks: Readonly<Record<string, string>> = {
  'Content-Length and Transfer-Encoding': `${post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
  'Transfer-Encoding and Content-Length': `${post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n${smuggled}`,
  'two different lengths': `${post}Content-Length: 0\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
  'two equal lengths': `${post}Content-Length: 0\r\nContent-Length: 0\r\n\r\n`,
  'a list of lengths': `${post}Content-Length: 0, ${smuggled.length}\r\n\r\n${smuggled}`,
  'a length with a plus': `${post}Content-Length: +${smuggled.length}\r\n\r\n${smuggled}`,
  'a negative length': `${post}Content-Length: -1\r\n\r\n${smuggled}`,
  'a hexadecimal length': `${post}Content-Length: 0x10\r\n\r\n${smuggled}`,
  'an empty length': `${post}Content-Length:\r\n\r\n${smuggled}`,
  'a length beyond 64 bits': `${post}Content-Length: 18446744073709551616\r\n\r\n${smuggled}`,
  'a length with a space in it': `${post}Content-Length: 1 0\r\n\r\n${smuggled}`,
  'an unknown coding': `${post}Transfer-Encoding: xchunked\r\n\r\n${chunk}`,
  'chunked, identity': `${post}Transfer-Encoding: chunked, identity\r\n\r\n${chunk}`,
  'identity, chunked': `${post}Transfer-Encoding: identity, chunked\r\n\r\n${chunk}`,
  'gzip, chunked': `${post}Transfer-Encoding: gzip, chunked\r\n\r\n${chunk}`,
  'chunked twice': `${post}Transfer-Encoding: chunked, chunked\r\n\r\n${chunk}`,
  'two Transfer-Encoding headers': `${post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n${chunk}`,
  'a quoted coding': `${post}Transfer-Encoding: "chunked"\r\n\r\n${chunk}`,
  'a vertical tab before the coding': `${post}Transfer-Encoding: \x0bchunked\r\n\r\n${chunk}`,
  'an empty coding': `${post}Transfer-Encoding:\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
  'a space before the colon': `${post}Transfer-Encoding : chunked\r\n\r\n${chunk}`,
  'a length with a space before the colon': `${post}Content-Length : ${smuggled.length}\r\n\r\n${smuggled}`,
  'a folded header': `${post}X: a\r\n Transfer-Encoding: chunked\r\n\r\n${chunk}`,
  'a folded coding': `${post}Transfer-Encoding:\r\n chunked\r\n\r\n${chunk}`,
  'a space before the first header': `POST /outer HTTP/1.1\r\n Host: a\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
  'bare line feeds': `POST /outer HTTP/1.1\nHost: a\nContent-Length: 0\n\n${smuggled}`,
  'one bare line feed': `${post}X: a\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
  'a bare carriage return': `${post}X: a\rTransfer-Encoding: chunked\r\n\r\n${chunk}`,
  'a null in a header': `${post}X: a\0b\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
  'a null in a name': `${post}Transfer-Encoding\0: chunked\r\n\r\n${chunk}`,
  'no name': `${post}: chunked\r\n\r\n${smuggled}`,
  'a line without a colon': `${post}Transfer-Encoding\r\n\r\n${smuggled}`,
  'chunks in HTTP/1.0': `POST /outer HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
  'an unknown version': `POST /outer HTTP/1.2\r\nHost: a\r\nContent-Length: 0\r\n\r\n${smuggled}`,
  'HTTP/2 in clear': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  'HTTP/0.9': 'GET /outer\r\n',
  'a chunk size with 0x': `${post}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n${smuggled}`,
  'a negative chunk size': `${post}Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n${smuggled}`,
  'a chunk size beyond 64 bits': `${post}Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n${smuggled}`,
  'an empty chunk size': `${post}Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n${smuggled}`,
  'a space before the chunk size': `${post}Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n${smuggled}`,
  'a chunk that is longer than it says': `${post}Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n${smuggled}`,
  'a chunk that ends with a line feed': `${post}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n${smuggled}`,
  'a chunk size that ends with a line feed': `${post}Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n${smuggled}`,
  'an extension with a line feed': `${post}Transfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n${smuggled}`,
  'an endless extension': `${post}Transfer-Encoding: chunked\r\n\r\n5;${'a'.repeat(200_000)}\r\nhello\r\n0\r\n\r\n`,
  'two hosts': 'GET /outer HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
  'no host': 'GET /outer HTTP/1.1\r\n\r\n',
  'a host with a path': 'GET /outer HTTP/1.1\r\nHost: a/b\r\n\r\n',
  'a host with a user': 'GET /outer HTTP/1.1\r\nHost: a@b\r\n\r\n',
  'two hosts in one': 'GET /outer HTTP/1.1\r\nHost: a, b\r\n\r\n',
  'a target without a slash': 'GET outer HTTP/1.1\r\nHost: a\r\n\r\n',
  'a target of another scheme': 'GET ftp://a/outer HTTP/1.1\r\nHost: a\r\n\r\n',
  'a fragment': 'GET /outer#x HTTP/1.1\r\nHost: a\r\n\r\n',
  'a target with a line feed': 'GET /outer\nX: y HTTP/1.1\r\nHost: a\r\n\r\n',
};

/** Fine, but known to have tricked proxies: must arrive as one request with exactly this body. */
const tricky: Readonly<Record<string, { readonly text: string; readonly body: string }>> = {
  'DELETE with a chunked body': {
    text: `DELETE /outer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
    body: smuggled,
  },
  'OPTIONS with a chunked body': {
    text: `OPTIONS /outer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
    body: smuggled,
  },
  'GET with a chunked body': {
    text: `GET /outer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n${chunk}`,
    body: smuggled,
  },
  'GET with a length': {
    text: `GET /outer HTTP/1.1\r\nHost: a\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
    body: smuggled,
  },
  'HEAD with a length': {
    text: `HEAD /outer HTTP/1.1\r\nHost: a\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
    body: smuggled,
  },
  'a length that Connection names': {
    text: `GET /outer HTTP/1.1\r\nHost: a\r\nConnection: content-length, keep-alive\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
    body: smuggled,
  },
  'a coding that Connection names': {
    text: `GET /outer HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
    body: smuggled,
  },
  'framing behind 3,000 other headers': {
    text: `GET /outer HTTP/1.1\r\nHost: a\r\n${'a:b\r\n'.repeat(3_000)}Transfer-Encoding: chunked\r\n\r\n${chunk}`,
    body: smuggled,
  },
  'a body with Expect': {
    text: `DELETE /outer HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
    body: smuggled,
  },
};

export function gateSmuggling(context: Context): void {
  let port: number;
  let seen: string;
  beforeEach('a service that writes down what it gets', async () => {
    seen = '';
    // Answers each piece once and keeps the connection, so that anything smuggled would stand behind a request here.
    const service = await tcpBackend(context, (socket: Socket) => {
      socket.on('data', (piece) => {
        seen += piece.toString('latin1');
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      });
    });
    const proxy: ProxyUnderTest = await context.start();
    port = await freePort();
    await proxy.apply(tableOf({ [`http://:${port} -> 1`]: 'web' }, { web: [service.port] }));
  });

  for (const [name, text] of Object.entries(attacks)) {
    it(`is not possible by ${name}`, async () => {
      const answer = await talk(port, text, { silenceMs: 150 });
      const requests = requestsIn(seen);
      if (context.rewrites) {
        // Each request that the service sees is one that the proxy has seen, and marked as its own; the last may be broken off.
        for (const [index, { head, isWhole }] of requests.entries())
          assert.ok(isMarked(head) && (isWhole || index === requests.length - 1), `the service was sent:\n${seen}`);
        return;
      }
      assert.ok(!requests.some(({ line }) => line.includes('/smuggled')), `the service was sent:\n${seen}`);
      if (/^HTTP\/1\.1 [45]/.test(answer) || answer === '')
        assert.equal(answer.match(/HTTP\/1\.1 /g)?.length ?? 0, answer === '' ? 0 : 1);
      // What was let in must have been framed beyond doubt, or broken off.
      for (const { isWhole, head } of requests) assert.ok(isWhole || !head.includes('200 OK'), seen);
      assert.ok(!/^HTTP\/1\.1 200/.test(answer) || isHarmless(name), `it was served: ${answer.slice(0, 80)}`);
    });
  }

  for (const [name, { text, body }] of Object.entries(tricky)) {
    it(`keeps the framing of ${name}`, async () => {
      await talk(port, text, { silenceMs: 150 });
      const requests = requestsIn(seen);
      assert.deepEqual(
        requests.map(({ line, body }) => [line.split(' ')[1], body]),
        [['/outer', body]],
        seen,
      );
    });
  }

  it('never lets a broken body look whole', async () => {
    const client = await open(port);
    client.write(`${post}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`);
    await sleep(100);
    client.write('zz\r\nhello\r\n0\r\n\r\n');
    await sleep(200);
    const [request] = requestsIn(seen);
    assert.equal(request?.isWhole, false, seen);
    client.destroy();
  });
}

function isMarked(head: string): boolean {
  return (head.match(/\r\nx-forwarded-for: 127\.0\.0\.1(?=\r\n|$)/gi) ?? []).length === 1 && !head.includes('\0');
}

/** Equal lengths say one thing only. Node refuses them all the same, as other servers do not. */
function isHarmless(name: string): boolean {
  return name === 'two equal lengths';
}

type Seen = { readonly line: string; readonly head: string; readonly body: string; readonly isWhole: boolean };

/** Reads bytes as a strict server would. */
function requestsIn(text: string): readonly Seen[] {
  const found: Seen[] = [];
  let rest = text;
  while (rest !== '') {
    const end = rest.indexOf('\r\n\r\n');
    if (end < 0) return [...found, { line: rest, head: rest, body: '', isWhole: false }];
    const head = rest.slice(0, end);
    rest = rest.slice(end + 4);
    const line = head.slice(0, head.indexOf('\r\n'));
    const length = Number(/\r\ncontent-length: *([0-9]+)/i.exec(head)?.[1] ?? 0);
    let body = rest.slice(0, length);
    let isWhole = body.length === length;
    if (/\r\ntransfer-encoding: *chunked/i.test(head)) {
      body = '';
      isWhole = false;
      for (let match = /^([0-9a-f]+)\r\n/i.exec(rest); match !== null; match = /^([0-9a-f]+)\r\n/i.exec(rest)) {
        const size = Number.parseInt(match[1] ?? '', 16);
        body += rest.slice(match[0].length, match[0].length + size);
        rest = rest.slice(match[0].length + size + 2);
        if (size === 0) isWhole = true;
        if (isWhole) break;
      }
    } else rest = rest.slice(length);
    found.push({ line, head, body, isWhole });
  }
  return found;
}
