import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { lendSocket } from '../../../plugin/storage/lend-socket.ts';
import { type Bench, bytes, type Context, created, mebi, namesOf, never, newId, rejectsWith, snap } from './context.ts';
import { received, replicated, sent, sentRest } from './streams.ts';

/** Two ends of a real connection, as a server and a client get them. */
async function openConnection(where: string | { readonly port: 0 }): Promise<readonly [Socket, Socket]> {
  const server = createServer();
  if (typeof where === 'string') server.listen(where);
  else server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(address !== null);
  const client = typeof address === 'string' ? connect(address) : connect(address.port, '127.0.0.1');
  const [[accepted]] = await Promise.all([once(server, 'connection'), once(client, 'connect')]);
  server.close();
  return [accepted, client];
}

async function say(socket: Socket, text: string): Promise<void> {
  await new Promise((resolve) => socket.write(text, resolve));
}

async function hear(socket: Socket): Promise<string> {
  const [data] = await once(socket, 'data');
  return String(data);
}

async function throughConnection(here: Bench, there: Bench, where: string | { readonly port: 0 }): Promise<void> {
  const [id, replica] = [await created(here), newId('replica')];
  const data = bytes(6 * mebi);
  await here.content.write(id, 'data', data);
  await here.storage.snapshot(id, snap('s1'));
  await here.content.write(id, 'file', 'two');
  await here.storage.snapshot(id, snap('s2'));
  const [receiver, sender] = await openConnection(where);
  try {
    // Two streams through one connection, with words of both sides before, between and after.
    for (const [from, to] of [
      [null, snap('s1')],
      [snap('s1'), snap('s2')],
    ] as const) {
      const [announced] = await Promise.all([hear(receiver), say(sender, `here comes ${to}`)]);
      assert.equal(announced, `here comes ${to}`);
      const ready = hear(sender);
      const receiving = lendSocket(receiver, async (descriptor) => {
        // Only now nothing of the stream can be swallowed; a short word to a lent socket goes out at once.
        await say(receiver, 'ready');
        return await there.storage.receive({ id: replica, to, from, stamp: 'x' }, descriptor, never());
      });
      assert.equal(await ready, 'ready');
      await lendSocket(sender, (descriptor) => here.storage.send({ id, to, from }, descriptor, never()));
      const [acknowledged] = await Promise.all([
        hear(sender),
        receiving.then(({ identity }) => say(receiver, identity)),
      ]);
      assert.equal(acknowledged, (await here.storage.snapshots(id)).find(({ name }) => name === to)?.identity);
    }
  } finally {
    receiver.destroy();
    sender.destroy();
  }
  assert.deepEqual(await namesOf(there, replica), ['s1', 's2']);
  assert.equal((await there.content.read(replica, 'data'))?.equals(data), true);
}

export function transportContract({ here, there, test }: Context): void {
  test('streams go through a TCP connection, between words of its two ends', () =>
    throughConnection(here(), there(), { port: 0 }));

  test('streams go through a unix socket, between words of its two ends', () =>
    throughConnection(here(), there(), join(here().directory, 'socket')));

  test('a connection that breaks leaves what was there before', async () => {
    const { source, replica } = await replicated(here(), there());
    await here().content.write(source, 'data', bytes(4 * mebi));
    await here().storage.snapshot(source, snap('s2'));
    const stream = await sent(here(), source, snap('s2'), snap('s1'));
    const [receiver, sender] = await openConnection({ port: 0 });
    const target = { id: replica, to: snap('s2'), from: snap('s1') };
    const receiving = lendSocket(receiver, (descriptor) =>
      there().storage.receive({ ...target, stamp: 'x' }, descriptor, never()),
    );
    const rejected = rejectsWith(receiving, 'stream-invalid');
    sender.end(stream.subarray(0, stream.length - 100_000));
    await rejected;
    receiver.destroy();
    assert.deepEqual(await namesOf(there(), replica), ['s1']);
    await received(there(), stream, target);
  });

  test('the size of a stream is estimated, or said to be unknown', async () => {
    const { storage, content } = here();
    const id = await created(here());
    await content.write(id, 'data', bytes(4 * mebi));
    await storage.snapshot(id, snap('s1'));
    await content.write(id, 'more', bytes(mebi));
    await storage.snapshot(id, snap('s2'));
    const complete = await storage.estimate({ id, to: snap('s1'), from: null });
    assert.ok(complete !== null && complete > 3 * mebi && complete < 6 * mebi, String(complete));
    const difference = await storage.estimate({ id, to: snap('s2'), from: snap('s1') });
    assert.ok(difference === null || (difference > mebi / 2 && difference < 3 * mebi), String(difference));
    await rejectsWith(storage.estimate({ id, to: snap('never'), from: null }), 'snapshot-not-found');
    await rejectsWith(storage.estimate({ id, to: snap('s1'), from: snap('never') }), 'snapshot-not-found');
  });

  test('a stream that was cut short is resumed where that is possible, and can be abandoned', async () => {
    const [id, replica] = [await created(here()), newId('replica')];
    await here().content.write(id, 'data', bytes(8 * mebi));
    await here().storage.snapshot(id, snap('s1'));
    await here().content.write(id, 'more', bytes(8 * mebi));
    await here().storage.snapshot(id, snap('s2'));
    const { storage } = there();
    const { resumableReceive } = await storage.capabilities();
    for (const [from, to] of [
      [null, snap('s1')],
      [snap('s1'), snap('s2')],
    ] as const) {
      const stream = await sent(here(), id, to, from);
      const cut = stream.subarray(0, 6 * mebi);
      const target = { id: replica, to, from };
      assert.equal(await storage.resumeToken(replica), null);
      await rejectsWith(received(there(), cut, { ...target, resumable: true }), 'stream-invalid');
      const token = await storage.resumeToken(replica);
      assert.equal(token !== null, resumableReceive);
      if (token !== null) {
        await storage.abandonReceive(replica);
        assert.equal(await storage.resumeToken(replica), null);
        assert.equal(await storage.exists(replica), from !== null);
        await rejectsWith(received(there(), cut, { ...target, resumable: true }), 'stream-invalid');
        const next = (await storage.resumeToken(replica)) ?? '';
        const rest = await sentRest(here(), id, next);
        assert.ok(rest.length < stream.length / 2, `${rest.length} of ${stream.length} bytes are left`);
        await rejectsWith(sentRest(here(), newId('other'), next), 'stream-invalid');
        await received(there(), rest, { ...target, resumable: true });
      } else await received(there(), stream, { ...target, resumable: true });
    }
    await storage.abandonReceive(replica);
    await storage.abandonReceive(newId('nobody'));
    assert.equal(await storage.resumeToken(newId('nobody')), null);
    assert.deepEqual(await namesOf(there(), replica), ['s1', 's2']);
    const forged = resumableReceive ? 'stream-invalid' : 'not-supported';
    await rejectsWith(here().storage.send({ id, token: '-F' }, 2, never()), forged);
  });

  test('a receive that is not to be resumed starts anew', async () => {
    const [id, replica] = [await created(here()), newId('replica')];
    await here().content.write(id, 'data', bytes(8 * mebi));
    await here().storage.snapshot(id, snap('s1'));
    const stream = await sent(here(), id, snap('s1'));
    const target = { id: replica, to: snap('s1') };
    const cut = stream.subarray(0, 6 * mebi);
    await rejectsWith(received(there(), cut, { ...target, resumable: true }), 'stream-invalid');
    await received(there(), stream, target);
    assert.equal(await there().storage.resumeToken(replica), null);
    assert.deepEqual(await namesOf(there(), replica), ['s1']);
  });
}
