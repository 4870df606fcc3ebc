import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { open, readFile, truncate, utimes, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { FlockError, hasCode } from '../../controller/model/errors.ts';
import { parseDatasetId, parseSnapshotName } from '../../controller/model/names.ts';
import type { Transfer } from '../../plugin/cluster/ports.ts';
import { createDoor, enter } from '../../plugin/peer/door.ts';
import { createPacer } from '../../plugin/peer/pacing.ts';
import type { MemoryStorage } from '../../plugin/storage/memory.ts';
import type { Storage } from '../../plugin/storage/storage.ts';
import {
  filesOf,
  type PeerPair,
  type PeerPairOptions,
  receiver,
  startBadLine,
  startPeerPair,
} from '../support/peer-pair.ts';
import { create, doc, id, makeStorages, writeSnapshot } from '../support/peer-volume.ts';
import { rejects } from '../support/refuses.ts';
import { makeResumable } from '../support/resumable-memory.ts';
import { until } from '../support/until.ts';

const never = new AbortController().signal;
const mebi = 1024 * 1024;
/** Wide enough for a machine whose processors are taken by others for a second. */
const short = { stallMs: 1_500, beatMs: 50, storageMs: 5_000 };
const quick = { stallMs: 5_000, beatMs: 50, storageMs: 10_000 };

describe('streams between nodes', () => {
  let here: MemoryStorage;
  let there: MemoryStorage;
  let pair: PeerPair;
  let line: Awaited<ReturnType<typeof startBadLine>>;

  async function start(options: Partial<PeerPairOptions> = {}): Promise<void> {
    pair = await startPeerPair({ from: here, to: there, limits: quick, ...options });
    line = await startBadLine(pair.at);
    pair.at = line.at;
  }

  beforeEach(async () => {
    ({ here, there } = await makeStorages());
  });
  afterEach(async () => {
    line.close();
    await pair.dispose();
  });

  const write = (name: string, bytes: number, from: string | null = null) => writeSnapshot(here, name, bytes, from);

  async function sameAs(name: string, storage: Storage = there): Promise<void> {
    const newest = (await storage.snapshots(id)).at(-1);
    assert.equal(newest?.name, name);
    assert.ok((await there.content.read(id, name))?.equals((await here.content.read(id, name)) ?? Buffer.alloc(0)));
  }

  /** Nothing of a stream is left in either process's folders. */
  async function nothingLeft(): Promise<void> {
    assert.deepEqual(await filesOf(`${pair.folder}/partials`), []);
    assert.deepEqual(await filesOf(`${pair.folder}/channels`), []);
  }

  it('bring what is small and what is large, and increments', async () => {
    await start();
    let progress = 0;
    await pair.send(await write('s1', 5 * mebi), never, (bytes) => (progress = bytes));
    await sameAs('s1');
    assert.ok(progress > 5 * mebi);
    await pair.send(await write('s2', 10, 's1'));
    await sameAs('s2');
    await pair.send(await write('s3', 0, 's2'));
    await sameAs('s3');
    await nothingLeft();
  });

  it('take a header that comes byte by byte, and refuse what is none', async () => {
    await start();
    const { toIdentity } = await write('s1', 10);
    for (const text of ['nonsense\n', '{}\n', `${JSON.stringify({ doc: 1 })}\n`, 'x'.repeat(100_000)]) {
      const bad = await connectData();
      bad.write(text);
      assert.match(await answer(bad), /stream-invalid/);
      bad.destroy();
    }
    const slow = await connectData();
    const header = JSON.stringify({ doc: JSON.stringify(doc), to: 's1', toIdentity, from: null });
    for (const letter of `${header}\n`) {
      slow.write(letter);
      await sleep(0);
    }
    assert.match(await answer(slow), /ready/);
    slow.destroy();
  });

  it('lose nothing of what comes in one packet with the header', async () => {
    await start();
    const transfer = await write('s1', 3000);
    const raw = await streamOf(transfer);
    const socket = await connectData();
    // Nobody may do so, and it does no harm either.
    const header = JSON.stringify({ ...transfer, doc: JSON.stringify(doc) });
    socket.end(Buffer.concat([Buffer.from(`${header}\n`), raw]));
    await until('it is there', 5_000, async () => (await there.exists(id)) || undefined);
    await sameAs('s1');
    socket.destroy();
  });

  it('survive a cut at any byte, and then arrive', async () => {
    await start();
    const transfer = await write('s1', 20_000);
    let whole = 0;
    for (let at = 0; whole === 0 || at < whole; at += 997) {
      line.passed = 0;
      line.fault = { kind: 'cut', at };
      const error = await pair.send(transfer).then(
        () => null,
        (reason: unknown) => reason,
      );
      if (error === null) {
        whole = line.passed;
        break;
      }
      assert.ok(hasCode(error, 'node-unreachable'), String(error));
      assert.equal(await there.exists(id), false);
    }
    assert.ok(whole > 20_000);
    line.fault = null;
    await sameAs('s1');
    await until('all is gone', 5_000, async () =>
      (await filesOf(`${pair.folder}/channels`)).length === 0 ? true : undefined,
    );
  });

  it('survive a changed byte anywhere', async () => {
    await start();
    const transfer = await write('s1', 20_000);
    for (const at of [10, 1_000, 3_000, 10_000, 20_000]) {
      line.passed = 0;
      line.fault = { kind: 'corrupt', at };
      await rejects(pair.send(transfer), 'node-unreachable');
      assert.equal(await there.exists(id), false);
    }
    await pair.send(transfer);
    await sameAs('s1');
  });

  it('go on where they were cut, from a spool', async () => {
    await start();
    const transfer = await write('s1', 12 * mebi);
    const sizes: number[] = [];
    for (const at of [4 * mebi, 4 * mebi]) {
      await cutAt(transfer, at);
      sizes.push(await pair.partials.spooled(id));
      assert.deepEqual(await pair.partials.find(id), { toIdentity: transfer.toIdentity, from: null });
    }
    assert.ok((sizes[0] ?? 0) > 2 * mebi && (sizes[1] ?? 0) > 6 * mebi, String(sizes));
    line.passed = 0;
    await pair.send(transfer);
    assert.ok(line.passed < 6 * mebi, `${line.passed} bytes were sent again`);
    await sameAs('s1');
    await nothingLeft();
  });

  it('begin anew where the spool is of another stream, or damaged', async () => {
    await start();
    const first = await write('s1', 6 * mebi);
    await cutAt(first, 4 * mebi);
    const path = pair.partials.spoolPath(id);
    const bytes = await pair.partials.spooled(id);
    await truncate(path, bytes / 2);
    await truncate(path, bytes);
    line.passed = 0;
    await pair.send(first);
    assert.ok(line.passed > 6 * mebi);
    await sameAs('s1');
    await nothingLeft();
    await there.destroy(id);
    await cutAt(first, 4 * mebi);
    const second = await write('s2', 6 * mebi);
    await pair.send(second);
    await sameAs('s2');
    await nothingLeft();
    // More than there is of the stream.
    await there.destroy(id);
    await cutAt(second, 4 * mebi);
    await truncate(path, 30 * mebi);
    await pair.send(second);
    await sameAs('s2');
    await nothingLeft();
  });

  /** Returns when both sides are done with it. */
  async function cutAt(transfer: Transfer, at: number): Promise<void> {
    const before = pair.received;
    line.passed = 0;
    line.fault = { kind: 'cut', at };
    await rejects(pair.send(transfer), 'node-unreachable');
    await until('the receiver has given up', 5_000, () => (pair.received > before ? true : undefined));
  }

  it('do without a spool where there is no room', async () => {
    let free = 0;
    await start({ freeBytes: () => free });
    const transfer = await write('s1', 6 * mebi);
    await cutAt(transfer, 4 * mebi);
    assert.equal(await pair.partials.spooled(id), 0);
    await pair.send(transfer);
    await sameAs('s1');
    free = 2 ** 40;
    await pair.send(await write('s2', 6 * mebi, 's1'));
    await nothingLeft();
  });

  it('forget what is older than a day', async () => {
    await start();
    await cutAt(await write('s1', 6 * mebi), 4 * mebi);
    await writeFile(`${pair.folder}/partials/other`, '');
    await pair.partials.sweep(Date.now());
    assert.equal((await filesOf(`${pair.folder}/partials`)).length, 3);
    for (const name of await filesOf(`${pair.folder}/partials`))
      await utimes(`${pair.folder}/partials/${name}`, 0, Date.now() / 1000 - 25 * 3600);
    await pair.partials.sweep(Date.now());
    assert.deepEqual(await filesOf(`${pair.folder}/partials`), ['other']);
  });

  it('go on with the token of a storage that has such', async () => {
    const from = makeResumable(here);
    const to = makeResumable(there);
    await start({ from, to });
    const first = await write('s1', 6 * mebi);
    await interrupted(first, to);
    line.passed = 0;
    await pair.send(first);
    assert.equal(from.resumed, 1);
    assert.ok(line.passed < 4 * mebi, `${line.passed} bytes were sent again`);
    await sameAs('s1');
    // Of another stream: abandoned by the receiver, which knows of which stream it is.
    const second = await write('s2', 6 * mebi, 's1');
    await interrupted(second, to);
    const third = await write('s3', 10, 's1');
    await pair.send(third);
    assert.equal(from.resumed, 1);
    await sameAs('s3');
    // The sender can't go on with it: it says so before it sends a byte.
    const fourth = await write('s4', 6 * mebi, 's3');
    await interrupted(fourth, to);
    const { send } = from;
    from.send = async (request, sink, signal) => {
      if ('token' in request) throw new FlockError('stream-invalid', 'this token is of another pool');
      await send(request, sink, signal);
    };
    await pair.send(fourth);
    await sameAs('s4');
    // Nor without encryption, where the receiver's storage sees only that nothing comes.
    const fifth = await write('s5', 6 * mebi, 's4');
    await interrupted(fifth, to);
    Object.assign(pair.settings, { encryptedHere: false, encryptedThere: false });
    await pair.send(fifth);
    await sameAs('s5');
    await nothingLeft();
  });

  async function interrupted(transfer: Transfer, to: Storage): Promise<void> {
    await cutAt(transfer, 4 * mebi);
    assert.ok((await to.resumeToken(id)) !== null);
  }

  it('say why the receiver refuses, also in the middle and at the end', async () => {
    const refusals: { readonly after: number; readonly code: 'pool-full' | 'epoch-stale' }[] = [
      { after: 0, code: 'epoch-stale' },
      { after: 100_000, code: 'pool-full' },
    ];
    for (const { after, code } of refusals) {
      const to: Storage = {
        ...there,
        async receive() {
          await until('some bytes have come', 5_000, () => (line.passed > after ? true : undefined));
          throw new FlockError(code, 'no more');
        },
      };
      await start({ to });
      const transfer = await write(code, 20 * mebi);
      const error = await rejects(pair.send(transfer), code);
      assert.match(error.message, /node node-2: no more/);
      await until('the receiver is done', 5_000, () => (pair.received === 1 ? true : undefined));
      await nothingLeft();
      line.close();
      await pair.dispose();
    }
    await start({
      to: { ...there, receive: async (...args) => ({ ...(await there.receive(...args)), identity: 'other' }) },
    });
    await pair.send(await write('s1', 10));
    await rejects(
      pair
        .send(await write('s2', 10, 's1'))
        .then(() => pair.send({ doc, to: parseSnapshotName('s2'), toIdentity: '', from: parseSnapshotName('s1') })),
      'no-common-snapshot',
    );
  });

  it('say why the sender fails, and leave the receiver as it was', async () => {
    const from: Storage = {
      ...here,
      async send(_request, sink) {
        writeSync(sink, 'flock mem');
        throw new FlockError('storage-daemon-down', 'it died');
      },
    };
    await start({ from });
    const transfer = await write('s1', 10);
    await rejects(pair.send(transfer), 'storage-daemon-down');
    assert.equal(await there.exists(id), false);
    line.close();
    await pair.dispose();
    await start({ from: { ...here, send: () => Promise.reject(new FlockError('snapshot-not-found', 'gone')) } });
    await rejects(pair.send(transfer), 'snapshot-not-found');
    await until('the receiver has noticed', 5_000, () => (pair.received === 1 ? true : undefined));
  });

  it('stop when the caller does', async () => {
    await start();
    const transfer = await write('s1', 20 * mebi);
    for (const limit of [0, 1, 2 * mebi]) {
      const stop = new AbortController();
      const sending = pair.send(transfer, stop.signal, (bytes) => {
        if (bytes > limit) stop.abort(new FlockError('caller-gone', 'enough'));
      });
      if (limit === 0) stop.abort(new FlockError('caller-gone', 'enough'));
      await rejects(sending, 'caller-gone');
    }
    await pair.send(transfer);
    await sameAs('s1');
  });

  it('notice a line that is silent', async () => {
    await start({ limits: short });
    const transfer = await write('s1', 20 * mebi);
    for (const at of [2_000, 1 * mebi]) {
      line.passed = 0;
      line.fault = { kind: 'stall', at };
      await rejects(pair.send(transfer), 'node-unreachable');
    }
    await until('the receiver has noticed', 5_000, () => (pair.received > 0 ? true : undefined));
    await pair.send(transfer);
    await sameAs('s1');
  });

  it('wait for a storage that is slow, but not for ever', async () => {
    let pauseMs = 3_000;
    const to: Storage = {
      ...there,
      async receive(request, source, signal) {
        await sleep(pauseMs, undefined, { signal });
        return await there.receive(request, source, signal);
      },
    };
    await start({ to, limits: short });
    const transfer = await write('s1', 4 * mebi);
    await pair.send(transfer);
    await sameAs('s1');
    pauseMs = 60_000;
    await rejects(pair.send(await write('s2', 4 * mebi, 's1')), 'storage-failed');
  });

  it('run both ways and many at once', async () => {
    await start();
    const ids = [1, 2, 3, 4, 5, 6].map((index) => parseDatasetId(`db.0000001${index}`));
    const transfers = await Promise.all(
      ids.map(async (each): Promise<Transfer> => {
        await here.create(each, create);
        await here.content.write(each, 's1', randomBytes(2 * mebi));
        const { identity } = await here.snapshot(each, parseSnapshotName('s1'));
        return { doc: { ...doc, id: each }, to: parseSnapshotName('s1'), toIdentity: identity, from: null };
      }),
    );
    await Promise.all(transfers.map((transfer) => pair.send(transfer)));
    for (const each of ids)
      assert.ok(
        (await there.content.read(each, 's1'))?.equals((await here.content.read(each, 's1')) ?? Buffer.alloc(0)),
      );
    // A repetition is refused, and changes nothing.
    const [first] = transfers;
    assert.ok(first !== undefined);
    await assert.rejects(pair.send(first));
    await nothingLeft();
  });

  it('go without encryption only where both nodes want that', async () => {
    await start();
    const small = 64 * 1024;
    for (const [encryptedHere, encryptedThere] of [
      [false, true],
      [true, false],
    ] as const) {
      Object.assign(pair.settings, { encryptedHere, encryptedThere });
      line.passed = 0;
      await pair.send(await write(`s-${encryptedHere}`, mebi));
      assert.ok(line.passed > mebi);
      await there.destroy(id);
    }
    Object.assign(pair.settings, { encryptedHere: false, encryptedThere: false });
    line.passed = 0;
    await pair.send(await write('s1', 5 * mebi));
    assert.ok(line.passed < small, 'only what steers it goes the encrypted way');
    await sameAs('s1');
    pair.settings.bytesPerSecond = 50 * mebi;
    await pair.send(await write('s2', 5 * mebi, 's1'));
    await sameAs('s2');
    await nothingLeft();
  });

  it('go encrypted where the plain port is not reached', async () => {
    await start();
    Object.assign(pair.settings, { encryptedHere: false, encryptedThere: false });
    const { expect } = pair.door;
    Object.assign(pair.door, {
      expect: async (...args: Parameters<typeof expect>) => {
        const guest = await expect(...args);
        return guest === null ? null : { ...guest, port: 1 };
      },
    });
    await pair.send(await write('s1', mebi));
    await sameAs('s1');
  });

  it('keep to the limit of the node, whatever the number of streams, also when it changes', async () => {
    await start();
    pair.settings.bytesPerSecond = 2 * mebi;
    const transfer = await write('s1', 8 * mebi);
    setTimeout(() => (pair.settings.bytesPerSecond = null), 700);
    const other = parseDatasetId('db.00000002');
    await here.create(other, create);
    await here.content.write(other, 's1', randomBytes(8 * mebi));
    const { identity } = await here.snapshot(other, parseSnapshotName('s1'));
    const second = { ...transfer, doc: { ...doc, id: other }, toIdentity: identity };
    let passed = 0;
    setTimeout(() => (passed = line.passed), 600);
    await Promise.all([pair.send(transfer), pair.send(second)]);
    assert.ok(passed < 2 * mebi, `${passed} bytes in 0.6 s`);
    await sameAs('s1');
  });

  async function connectData() {
    const socket = await pair.client.connectData(receiver, never);
    socket.on('error', () => undefined);
    return socket;
  }

  async function answer(socket: Awaited<ReturnType<typeof connectData>>): Promise<string> {
    for (;;) {
      const [chunk] = (await once(socket, 'data')) as [Buffer];
      const text = chunk.toString();
      if (text !== '{"beat":true}\n') return text;
    }
  }

  async function streamOf(transfer: Transfer): Promise<Buffer> {
    const path = `${pair.folder}/raw`;
    const file = await open(path, 'w');
    await here.send({ id, to: transfer.to, from: transfer.from }, file.fd, never);
    await file.close();
    return await readFile(path);
  }
});

describe('the plain port', () => {
  it('lets in who has the ticket, once, from the right address, in time', async () => {
    const door = createDoor({ address: '127.0.0.1', port: 0, ticketMs: 300 });
    const guest = await door.expect('127.0.0.1', never);
    assert.ok(guest !== null);
    const at = { address: '127.0.0.1', port: guest.port };
    const wrong = connect(guest.port, '127.0.0.1');
    wrong.on('error', () => undefined).end(Buffer.alloc(32));
    await once(wrong.resume(), 'close');
    const long = connect(guest.port, '127.0.0.1');
    long.on('error', () => undefined).write(Buffer.concat([Buffer.from(guest.ticket, 'hex'), Buffer.from('x')]));
    await once(long.resume(), 'close');
    const mine = await enter({ ...at, ticket: guest.ticket }, never);
    const theirs = await guest.socket;
    assert.equal(theirs.readableLength, 0);
    // It does not listen any more.
    await rejects(enter({ ...at, ticket: guest.ticket }, never), 'node-unreachable');
    mine.destroy();
    theirs.destroy();
    const late = await door.expect('127.0.0.1', never);
    assert.ok(late !== null);
    await rejects(late.socket, 'node-unreachable');
    const foreign = await door.expect('127.0.0.9', never);
    assert.ok(foreign !== null);
    const stranger = await enter({ address: '127.0.0.1', port: foreign.port, ticket: foreign.ticket }, never);
    await once(stranger.resume(), 'end');
    stranger.destroy();
    await rejects(foreign.socket, 'node-unreachable');
    door.close();
  });

  it('says so where its port is taken', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const at = taken.address();
    assert.ok(typeof at === 'object' && at !== null);
    const door = createDoor({ address: '127.0.0.1', port: at.port });
    assert.equal(await door.expect('127.0.0.1', never), null);
    taken.close();
    await once(taken, 'close');
    const guest = await door.expect('127.0.0.1', AbortSignal.timeout(50));
    assert.ok(guest !== null);
    await assert.rejects(guest.socket);
  });
});

describe('the limit of what is sent', () => {
  it('is a rate with small bursts, shared by all who take', async () => {
    let nowMs = 0;
    let limit: number | null = 100_000;
    const pacer = createPacer(
      () => limit,
      () => nowMs,
    );
    assert.equal(pacer.pieceBytes(), 10_000);
    nowMs = 1_000;
    assert.equal(pacer.take(10_000, never), null);
    const waits = [pacer.take(1_000, never), pacer.take(1_000, never)];
    let over = 0;
    for (const wait of waits) void wait?.then(() => (over += 1));
    await sleep(30);
    assert.equal(over, 0);
    nowMs += 20;
    await sleep(150);
    assert.equal(over, 2);
    const slow = pacer.take(1_000_000, never);
    limit = null;
    await slow;
    assert.equal(pacer.pieceBytes(), null);
    assert.equal(pacer.take(1_000_000, never), null);
    limit = 1;
    assert.equal(pacer.pieceBytes(), 1024);
    await assert.rejects(async () => await pacer.take(10, AbortSignal.timeout(20)));
  });
});
