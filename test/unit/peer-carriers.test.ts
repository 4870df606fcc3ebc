import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { FlockError } from '../../controller/model/errors.ts';
import { parseSnapshotName } from '../../controller/model/names.ts';
import type { Transfer } from '../../plugin/cluster/ports.ts';
import { createCarriers } from '../../plugin/peer/carrier.ts';
import { openChannel } from '../../plugin/peer/channel.ts';
import { createShutDoors } from '../../plugin/peer/door.ts';
import { lendSocket } from '../../plugin/storage/lend-socket.ts';
import type { MemoryStorage } from '../../plugin/storage/memory.ts';
import type { Storage } from '../../plugin/storage/storage.ts';
import {
  carrierScript,
  filesOf,
  type PeerPair,
  type PeerPairOptions,
  receiver,
  sender,
  startBadLine,
  startPeerPair,
} from '../support/peer-pair.ts';
import { create, doc, id, makeStorages, writeSnapshot } from '../support/peer-volume.ts';
import { rejects } from '../support/refuses.ts';
import { makeResumable } from '../support/resumable-memory.ts';
import { until } from '../support/until.ts';

const never = new AbortController().signal;
const mebi = 1024 * 1024;
const limits = { stallMs: 5_000, beatMs: 50, storageMs: 10_000 };

describe('large streams between nodes', () => {
  let here: MemoryStorage;
  let there: MemoryStorage;
  let pair: PeerPair;
  /** Before the port that they are brought to. */
  let line: Awaited<ReturnType<typeof startBadLine>>;
  /** Before the port where they are agreed on. */
  let control: Awaited<ReturnType<typeof startBadLine>>;

  async function start(options: Partial<PeerPairOptions> = {}): Promise<void> {
    pair = await startPeerPair({ from: here, to: there, limits, carriedBytes: mebi, ...options });
    control = await startBadLine(pair.at);
    pair.at = control.at;
    const doorAt = { address: '127.0.0.1', port: 0 };
    line = await startBadLine(doorAt);
    const { expect } = pair.door;
    Object.assign(pair.door, {
      expect: async (...args: Parameters<typeof expect>) => {
        const guest = await expect(...args);
        if (guest === null) return null;
        doorAt.port = guest.port;
        return { ...guest, port: line.at.port };
      },
    });
  }

  async function stop(): Promise<void> {
    for (const each of [line, control]) each.close();
    await pair.dispose();
  }

  beforeEach(async () => {
    ({ here, there } = await makeStorages());
  });
  afterEach(stop);

  const write = (name: string, bytes: number, from: string | null = null) => writeSnapshot(here, name, bytes, from);

  async function sameAs(name: string): Promise<void> {
    assert.equal((await there.snapshots(id)).at(-1)?.name, name);
    assert.ok((await there.content.read(id, name))?.equals((await here.content.read(id, name)) ?? Buffer.alloc(0)));
  }

  async function nothingLeft(): Promise<void> {
    await until('no carrier is left', 5_000, async () => ((await carriersOf()).length === 0 ? true : undefined));
    assert.deepEqual(await filesOf(`${pair.folder}/partials`), []);
    assert.deepEqual(await filesOf(`${pair.folder}/channels`), []);
  }

  /** Returns when both sides are done with it. */
  async function fails(transfer: Transfer, code = 'node-unreachable'): Promise<FlockError> {
    const before = pair.received;
    pair.shut.clear();
    const error = await rejects(pair.send(transfer), code as 'node-unreachable');
    await until('the receiver has given up', 8_000, () => (pair.received > before ? true : undefined));
    return error;
  }

  it('go by carriers; small ones and increments do not', async () => {
    await start();
    const told: number[] = [];
    await pair.send(await write('s1', 40 * mebi), never, (bytes) => told.push(bytes));
    await sameAs('s1');
    assert.ok(line.passed > 40 * mebi, `${line.passed} bytes`);
    assert.ok(control.passed < mebi);
    assert.ok((told.at(-1) ?? 0) > 40 * mebi, String(told));
    line.passed = 0;
    await pair.send(await write('s2', 5 * mebi, 's1'));
    await sameAs('s2');
    await there.destroy(id);
    await here.destroy(id);
    await here.create(id, create);
    await pair.send(await write('s3', 1000));
    await sameAs('s3');
    assert.equal(line.passed, 0);
    await nothingLeft();
  });

  it('are encrypted, by a key that is another one each time', async () => {
    await start();
    const marker = Buffer.alloc(2 * mebi, 'a marker that is found ');
    const seen: Buffer[] = [];
    const { port } = line.at;
    const spy = createServer((near) => near.on('data', (chunk) => seen.push(chunk)).on('error', () => undefined));
    spy.listen(0, '127.0.0.1');
    await once(spy, 'listening');
    const { expect } = pair.door;
    Object.assign(pair.door, {
      expect: async (...args: Parameters<typeof expect>) => {
        const guest = await expect(...args);
        return guest === null ? null : { ...guest, port: (spy.address() as { port: number }).port };
      },
    });
    assert.notEqual(port, 0);
    await here.content.write(id, 's1', marker);
    const { identity } = await here.snapshot(id, parseSnapshotName('s1'));
    const stopping = new AbortController();
    const sending = pair.send({ doc, to: parseSnapshotName('s1'), toIdentity: identity, from: null }, stopping.signal);
    sending.catch(() => undefined);
    await until('something has come', 5_000, () => (seen.length > 0 ? true : undefined));
    stopping.abort(new FlockError('caller-gone', 'seen enough'));
    await rejects(sending, 'caller-gone');
    spy.close();
    assert.ok(!Buffer.concat(seen).includes('a marker'));
  });

  it('survive a cut, a changed byte and a silent line, and then arrive', async () => {
    await start({ limits: { stallMs: 1_500, beatMs: 50, storageMs: 3_000 } });
    const transfer = await write('s1', 12 * mebi);
    const again = async () => {
      // Or the next one would be compared with it, through the plugin.
      await pair.partials.remove(id);
      if (await there.exists(id)) await there.destroy(id);
    };
    for (const kind of ['cut', 'corrupt', 'stall'] as const)
      for (const at of [100, 5 * mebi]) {
        line.passed = 0;
        line.fault = { kind, at };
        // Both nodes answer: what stands still may as well be the storage.
        await fails(transfer, kind === 'stall' ? 'storage-failed' : 'node-unreachable');
        await again();
      }
    for (const kind of ['cut', 'corrupt', 'stall'] as const) {
      line.passed = 0;
      line.fault = { kind: 'stall', at: 5 * mebi };
      const failing = fails(transfer);
      failing.catch(() => undefined);
      await until('it is carried', 5_000, () => (line.passed > 5 * mebi ? true : undefined));
      control.fault = { kind, at: control.passed };
      await failing;
      await again();
    }
    await pair.send(transfer);
    await sameAs('s1');
    await nothingLeft();
  }).timeout(60_000);

  it('go on where they were cut, from the spool', async () => {
    await start();
    const transfer = await write('s1', 12 * mebi);
    line.fault = { kind: 'cut', at: 6 * mebi };
    await fails(transfer);
    const spooled = await pair.partials.spooled(id);
    assert.ok(spooled > 3 * mebi, String(spooled));
    line.passed = control.passed = 0;
    await pair.send(transfer);
    assert.ok(line.passed + control.passed < 9 * mebi, `${line.passed + control.passed} bytes were sent again`);
    await sameAs('s1');
    await nothingLeft();
  });

  it('are not spooled where it is faster to send them again', async () => {
    for (const [estimate, isKept] of [
      [100 * mebi, false],
      [2 ** 45, true],
    ] as const) {
      await start({ from: { ...here, estimate: async () => estimate } });
      const transfer = await write(`s-${isKept}`, 100 * mebi);
      line.fault = { kind: 'cut', at: 90 * mebi };
      const { message } = await fails(transfer);
      assert.equal((await pair.partials.spooled(id)) > 0, isKept, message);
      await pair.send(transfer);
      await sameAs(`s-${isKept}`);
      await nothingLeft();
      await stop();
      await there.destroy(id);
    }
    await start();
  }).timeout(30_000);

  it('do without a spool where there is no room', async () => {
    await start({ freeBytes: () => 0 });
    const transfer = await write('s1', 6 * mebi);
    line.fault = { kind: 'cut', at: 4 * mebi };
    await fails(transfer);
    assert.equal(await pair.partials.spooled(id), 0);
    await pair.send(transfer);
    await sameAs('s1');
  });

  it('go on with the token of a storage that has such', async () => {
    const from = makeResumable(here);
    const to = makeResumable(there);
    await start({ from, to });
    const transfer = await write('s1', 6 * mebi);
    line.fault = { kind: 'cut', at: 4 * mebi };
    await fails(transfer);
    line.passed = 0;
    assert.ok(pair.shut.has(receiver), 'for the connection broke while that between the nodes did not');
    pair.shut.clear();
    await pair.send(transfer);
    assert.equal(from.resumed, 1);
    assert.ok(line.passed > 0 && line.passed < 6 * mebi, `${line.passed} bytes were sent again`);
    await sameAs('s1');
    await nothingLeft();
  });

  it('say why the receiver or the sender fails, and leave nothing', async () => {
    const to: Storage = {
      ...there,
      async receive() {
        await until('some bytes have come', 5_000, () => (line.passed > 100_000 ? true : undefined));
        throw new FlockError('pool-full', 'no more');
      },
    };
    await start({ to });
    const transfer = await write('s1', 20 * mebi);
    assert.match((await fails(transfer, 'pool-full')).message, /node node-2: no more/);
    await nothingLeft();
    await stop();
    await start({
      from: { ...here, send: () => Promise.reject(new FlockError('storage-daemon-down', 'it died')) },
    });
    await fails(transfer, 'storage-daemon-down');
    assert.equal(await there.exists(id), false);
    await until('no carrier is left', 5_000, async () => ((await carriersOf()).length === 0 ? true : undefined));
  });

  it('break when a carrier is killed on either side, and stop when the caller does', async () => {
    await start();
    const transfer = await write('s1', 12 * mebi);
    for (const index of [0, 1]) {
      line.passed = 0;
      line.fault = { kind: 'stall', at: 6 * mebi };
      const sending = fails(transfer);
      const found = await until('both carry', 8_000, async () => {
        const pids = await carriersOf();
        return line.passed > 6 * mebi && pids.length === 2 ? pids : undefined;
      });
      process.kill(found[index] ?? 0, 'SIGKILL');
      assert.match((await sending).message, /carrying the stream failed|broke|hung up|closed/);
      assert.ok((await pair.partials.spooled(id)) > mebi, 'what has come is kept');
      await pair.partials.remove(id);
    }
    for (const limit of [0, 2 * mebi]) {
      pair.shut.clear();
      const stopping = new AbortController();
      const sending = pair.send(transfer, stopping.signal);
      const reason = new FlockError('caller-gone', 'enough');
      if (limit > 0) await until('it has begun', 8_000, () => (line.passed > limit ? true : undefined));
      stopping.abort(reason);
      await rejects(sending, 'caller-gone').catch((error: unknown) => {
        if (limit === 0) throw error;
      });
      line.passed = 0;
    }
    await until('no carrier is left', 5_000, async () => ((await carriersOf()).length === 0 ? true : undefined));
  }).timeout(60_000);

  it('go through the plugin where the port is not reached, and do not ask again at once', async () => {
    await start();
    const { expect } = pair.door;
    let asked = 0;
    Object.assign(pair.door, {
      expect: async (...args: Parameters<typeof expect>) => {
        asked += 1;
        const guest = await expect(...args);
        return guest === null ? null : { ...guest, port: 1 };
      },
    });
    const transfer = await write('s1', 2 * mebi);
    await pair.send(transfer);
    await sameAs('s1');
    await there.destroy(id);
    await pair.send(transfer);
    await sameAs('s1');
    assert.equal(asked, 1);
    await nothingLeft();
    let now = 0;
    const doors = createShutDoors(() => now);
    doors.add(receiver);
    assert.ok(doors.has(receiver) && !doors.has(sender));
    now = 11 * 60_000;
    assert.ok(!doors.has(receiver));
  });

  it('go through the plugin where something else answers at the port', async () => {
    await start();
    const other = createServer((socket) => socket.on('error', () => undefined).resume());
    other.listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { expect } = pair.door;
    Object.assign(pair.door, {
      expect: async (...args: Parameters<typeof expect>) => {
        const guest = await expect(...args);
        return guest === null ? null : { ...guest, port: (other.address() as { port: number }).port };
      },
    });
    await pair.send(await write('s1', 2 * mebi));
    await sameAs('s1');
    assert.equal(line.passed, 0);
    other.close();
    await nothingLeft();
  });

  it('go through the plugin the next time where carriers can not be started', async () => {
    await start({ carrierScript: '/nowhere/carrier.js' });
    const transfer = await write('s1', 2 * mebi);
    assert.match((await fails(transfer)).message, /carrying the stream failed: .*Cannot find module/);
    assert.ok(pair.shut.has(receiver));
    await pair.send(transfer);
    await sameAs('s1');
    await nothingLeft();
  });

  it('keep to a limit that is set meanwhile', async () => {
    await start();
    const transfer = await write('s1', 12 * mebi);
    line.fault = { kind: 'stall', at: 5 * mebi };
    const sending = pair.send(transfer);
    await until('it is carried', 5_000, () => (line.passed > 5 * mebi ? true : undefined));
    const before = line.passed;
    pair.settings.bytesPerSecond = 50 * mebi;
    await sending;
    assert.ok(line.passed - before < 3 * mebi);
    await sameAs('s1');
    await nothingLeft();
  });

  it('tell the sender’s own reason, and the receiver’s though it comes late', async () => {
    for (const bytes of [0, 300_000, 2 * mebi]) {
      const from: Storage = {
        ...here,
        async send(_request, sink) {
          for (let at = 0; at < bytes; )
            try {
              at += writeSync(sink, Buffer.alloc(Math.min(100_000, bytes - at)));
            } catch {
              await sleep(2);
            }
          throw new FlockError('pool-unusable', 'my own reason');
        },
        estimate: async () => 10 * mebi,
      };
      const to: Storage = { ...there, receive: (_request, _source, signal) => ended(signal) };
      await start({ from, to, limits: { ...limits, storageMs: 6_000 } });
      assert.match((await fails(await write(`s-${bytes}`, 10), 'pool-unusable')).message, /^my own reason/);
      await stop();
    }
    await start({
      to: {
        ...there,
        async receive() {
          await until('some bytes have come', 5_000, () => (line.passed > mebi ? true : undefined));
          throw new FlockError('pool-full', 'no more');
        },
        async capabilities() {
          return { ...(await there.capabilities()), resumableReceive: true };
        },
        async resumeToken() {
          await sleep(1_500);
          return null;
        },
      },
    });
    assert.match((await fails(await write('s1', 20 * mebi), 'pool-full')).message, /no more/);
  }).timeout(40_000);

  it('go through the plugin where as many carriers as may be are at work, or there is a limit', async () => {
    await start({ carriersMax: 1 });
    const transfer = await write('s1', 2 * mebi);
    // The pair shares them: the sender has the only one.
    await pair.send(transfer);
    await sameAs('s1');
    assert.equal(line.passed, 0);
    await there.destroy(id);
    await stop();
    await start();
    pair.settings.bytesPerSecond = 100 * mebi;
    await pair.send(transfer);
    assert.equal(line.passed, 0);
    pair.settings.bytesPerSecond = null;
    await there.destroy(id);
    await pair.send(transfer);
    assert.ok(line.passed > 2 * mebi);
    await nothingLeft();
  });

  /** Of a command that waits until it is ended. */
  function ended(signal: AbortSignal): Promise<never> {
    return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
  }

  /** This process's children. */
  async function carriersOf(): Promise<readonly number[]> {
    const pids = (await readdir('/proc')).map(Number).filter(Number.isInteger);
    const found = await Promise.all(
      pids.map(async (pid) => {
        const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
        const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
        const [, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        return Number(parent) === process.pid && command.includes('carrier-process') ? [pid] : [];
      }),
    );
    return found.flat();
  }
});

describe('a carrier', () => {
  const carriers = createCarriers({ script: carrierScript });
  const key = 'a1'.repeat(32);
  const other = 'b2'.repeat(32);

  /** Two ends of a TCP connection. */
  async function connection(): Promise<{ readonly near: Socket; readonly far: Socket; close(): void }> {
    const { connect } = await import('node:net');
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const near = connect({ port: (server.address() as { port: number }).port, host: '127.0.0.1', allowHalfOpen: true });
    near.pause();
    const [[far]] = await Promise.all([once(server, 'connection'), once(near, 'connect')]);
    server.close();
    for (const socket of [near, far as Socket]) socket.on('error', () => undefined);
    return {
      near,
      far: far as Socket,
      close() {
        near.destroy();
        (far as Socket).destroy();
      },
    };
  }

  const run = async (role: 'send' | 'receive', at: Socket, theirs: string) => {
    const folder = await mkdtemp(join(tmpdir(), 'flock-carrier-'));
    const channel = await openChannel(folder);
    const carrier = carriers.claim();
    assert.ok(carrier !== null);
    try {
      if (role === 'send') await channel.lend(async () => channel.finish());
      await lendSocket(at, (fd) =>
        lendSocket(channel.stream, (command) =>
          carrier.carry({ role, key: theirs, command, connection: fd, spool: null }, () => undefined, never),
        ),
      );
    } finally {
      channel.close();
      carrier.release();
      await rm(folder, { recursive: true, force: true });
    }
  };

  it('refuses who has another key, or shows a certificate, or speaks no TLS, or hangs up', async () => {
    for (const theirs of [key, other]) {
      const { near, far, close } = await connection();
      const both = await Promise.allSettled([run('send', near, key), run('receive', far, theirs)]);
      assert.deepEqual(
        both.map(({ status }) => status),
        theirs === key ? ['fulfilled', 'fulfilled'] : ['rejected', 'rejected'],
      );
      close();
    }
    const { near, far, close } = await connection();
    const receiving = run('receive', far, key);
    near.write('GET / HTTP/1.1\r\n\r\n');
    await rejects(receiving, 'node-unreachable');
    close();
    const silent = await connection();
    const waiting = run('receive', silent.far, key);
    silent.near.end();
    assert.match((await rejects(waiting, 'node-unreachable')).message, /hung up before/);
    silent.close();
    const again = await connection();
    const admitting = run('receive', again.far, key);
    const client = connectTls({ socket: again.near, rejectUnauthorized: false });
    client.on('error', () => undefined);
    await rejects(admitting, 'node-unreachable');
    again.close();
  }).timeout(30_000);

  it('ends at the first record that was changed, though nobody hangs up', async () => {
    const { near, far, close } = await connection();
    const receiving = run('receive', far, key);
    receiving.catch(() => undefined);
    // The client's TLS with nothing to say after the handshake; what comes then is not its own.
    const line = new Duplex({ read: () => undefined, write: (chunk, _encoding, done) => void near.write(chunk, done) });
    near.on('data', (chunk) => line.push(chunk)).resume();
    const client = connectTls({
      ...{ socket: line, minVersion: 'TLSv1.3', ciphers: 'TLS_AES_128_GCM_SHA256' },
      ...{ pskCallback: () => ({ psk: Buffer.from(key, 'hex'), identity: 'carrier' }) },
      checkServerIdentity: () => undefined,
    });
    client.on('error', () => undefined);
    await once(client, 'data');
    near.write(Buffer.concat([Buffer.from('1703030040', 'hex'), randomBytes(64)]));
    assert.match((await rejects(receiving, 'node-unreachable')).message, /bad record mac/i);
    close();
  }).timeout(30_000);
});
