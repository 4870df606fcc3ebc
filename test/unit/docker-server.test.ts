import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { request, type Server } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { FlockError } from '../../controller/model/errors.ts';
import { parseVolumeName } from '../../controller/model/names.ts';
import { listen } from '../../controller/server/listen.ts';
import type { Node } from '../../plugin/node.ts';
import { createDockerServer } from '../../plugin/server/docker.ts';
import type { createMemory } from '../../plugin/storage/memory.ts';
import { createFixture, memoryHost, type PluginFixture } from '../support/plugin-context.ts';
import { until } from '../support/until.ts';

describe('the volume protocol, as Docker Engine speaks it', () => {
  let host: PluginFixture<ReturnType<typeof createMemory>>;
  let folder = '';
  let server: Server;
  let ready: Promise<void>;
  let stateOpen = true;
  const holdMs = 300;

  beforeEach(async () => {
    host = await createFixture(memoryHost());
    folder = await mkdtemp(join(tmpdir(), 'flock-docker-'));
    ready = Promise.resolve();
    stateOpen = true;
    const node: Node = {
      state: () => (stateOpen ? host.context.state : null),
      context: () => (stateOpen ? host.context : null),
      ready: async () => {
        await ready;
        return host.context;
      },
      usable: async () => {
        await ready;
        return host.context;
      },
      problem: () => null,
      changeSettings: () => assert.fail('not part of the protocol'),
      run: () => assert.fail('not part of the protocol'),
    };
    server = await listen(
      join(folder, 's'),
      createDockerServer(node, () => 'host-1', pino({ level: 'silent' }), holdMs),
    );
  });
  afterEach(async () => {
    server.closeAllConnections();
    server.close();
    await host.dispose();
    await rm(folder, { recursive: true });
  });

  /** As Docker's Go client does it: no content type, a newline at the end. */
  function post(
    path: string,
    body: string | Buffer,
  ): Promise<{ readonly status: number; readonly body: Record<string, unknown> }> {
    return new Promise((resolve, reject) => {
      const outgoing = request(
        {
          socketPath: join(folder, 's'),
          method: 'POST',
          path,
          headers: { accept: 'application/vnd.docker.plugins.v1.2+json', 'content-length': Buffer.byteLength(body) },
        },
        (response) => {
          let text = '';
          response.on('data', (chunk) => {
            text += chunk;
          });
          response.on('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }));
        },
      );
      outgoing.on('error', reject);
      outgoing.end(body);
    });
  }
  const call = async (name: string, body: unknown) =>
    (await post(`/VolumeDriver.${name}`, `${JSON.stringify(body)}\n`)).body;
  const errorOf = async (name: string, body: unknown) => String((await call(name, body))['Err']);

  it('leads a volume through its life', async () => {
    assert.match(await errorOf('Get', { Name: 'v1' }), /there is no volume "v1"/);
    assert.deepEqual(await call('Create', { Name: 'v1', Opts: null }), { Err: '' });
    const mounted = await call('Mount', { Name: 'v1', ID: 'a'.repeat(64) });
    assert.match(String(mounted['Mountpoint']), /v1\.[0-9a-f]{8}$/);
    assert.deepEqual(await call('Path', { Name: 'v1' }), { Err: '', Mountpoint: mounted['Mountpoint'] });
    const { Volume } = (await call('Get', { Name: 'v1' })) as { Volume: Record<string, unknown> };
    assert.equal(Volume['Mountpoint'], mounted['Mountpoint']);
    assert.equal(new Date(String(Volume['CreatedAt'])).toISOString(), Volume['CreatedAt']);
    assert.equal((Volume['Status'] as Record<string, unknown>)['owner'], 'host-1');
    assert.deepEqual(await call('Unmount', { Name: 'v1', ID: 'a'.repeat(64) }), { Err: '' });
    const { Volumes } = (await call('List', {})) as { Volumes: readonly Record<string, unknown>[] };
    assert.deepEqual(Object.keys(Volumes[0] ?? {}), ['Name', 'Mountpoint', 'CreatedAt']);
    assert.deepEqual(await call('Remove', { Name: 'v1' }), { Err: '' });
    assert.deepEqual(((await call('List', {})) as { Volumes: unknown[] }).Volumes, []);
  });

  it('has global scope, and answers Capabilities and Activate before anything is ready', async () => {
    stateOpen = false;
    assert.deepEqual(await call('Capabilities', {}), { Err: '', Capabilities: { Scope: 'global' } });
    assert.deepEqual((await post('/Plugin.Activate', '')).body, { Implements: ['VolumeDriver'] });
  });

  it('closes the connection instead of an error from Get and Path while it does not know (Docker would forget the volume)', async () => {
    stateOpen = false;
    for (const name of ['Get', 'Path', 'List'])
      await assert.rejects(call(name, { Name: 'v1' }), /socket hang up|ECONNRESET/);
  });

  it('does nothing for the empty body of a repeated call', async () => {
    for (const name of ['Create', 'Mount', 'Unmount', 'Remove']) {
      const { status, body } = await post(`/VolumeDriver.${name}`, '');
      assert.equal(status, 200);
      assert.match(String(body['Err']), /request is empty/);
    }
    assert.deepEqual(host.context.state.all(), []);
  });

  it('answers no empty or unreadable question about volumes, because an error would mean that there is no such volume', async () => {
    await call('Create', { Name: 'v1' });
    for (const name of ['Get', 'Path', 'List'])
      for (const body of ['', ' \n', '{', '[]', '{"Name":1', '\u0000', 'x'.repeat(2 * 1024 * 1024)])
        await assert.rejects(
          post(`/VolumeDriver.${name}`, body),
          /socket hang up|ECONNRESET|EPIPE/,
          `${name} ${body.slice(0, 9)}`,
        );
    for (const name of ['Get', 'Path']) await assert.rejects(call(name, { Name: 5 }), /socket hang up|ECONNRESET/);
  });

  it('answers no question with a fault of its own', async () => {
    await call('Create', { Name: 'v1' });
    host.context.usage.refreshSoon = () => {
      throw new TypeError('a mistake of ours');
    };
    await assert.rejects(call('Get', { Name: 'v1' }), /socket hang up|ECONNRESET/);
  });

  it('answers Capabilities without a body', async () =>
    assert.deepEqual((await post('/VolumeDriver.Capabilities', '')).body, {
      Err: '',
      Capabilities: { Scope: 'global' },
    }));

  it('lets questions wait a while for the state file', async () => {
    await call('Create', { Name: 'v1' });
    stateOpen = false;
    const answers = Promise.all([call('Get', { Name: 'v1' }), call('List', {})]);
    setTimeout(() => {
      stateOpen = true;
    }, holdMs / 3);
    assert.equal((await answers)[0]['Err'], '');
  });

  it('refuses a name of an option that only objects know', async () => {
    const { body } = await post('/VolumeDriver.Create', '{"Name":"v1","Opts":{"__proto__":"x"}}');
    assert.match(String(body['Err']), /option "__proto__": there is no such option/);
    assert.deepEqual(host.context.state.all(), []);
  });

  it('says where a request has another shape', async () => {
    assert.match(String((await post('/VolumeDriver.Create', '[]')).body['Err']), /malformed: the whole: Invalid input/);
    assert.match(await errorOf('Mount', { Name: 'v1' }), /malformed: "ID": Invalid input/);
  });

  for (const [what, body] of [
    ['not JSON', '{'],
    ['a list', '[]'],
    ['text', '"v1"'],
    ['no name', '{}'],
    ['null', 'null'],
    ['a number as the name', '{"Name":1}'],
    ['an object as an option', '{"Name":"v1","Opts":{"size":{}}}'],
    ['a NUL in the name', '{"Name":"a\\u0000b"}'],
    ['a path as the name', '{"Name":"../../etc"}'],
    ['binary', Buffer.from([0xff, 0xfe, 0, 1])],
    ['a body over the limit', `{"Name":"${'x'.repeat(2 * 1024 * 1024)}"}`],
  ] as const) {
    it(`refuses ${what} with an error and creates nothing`, async () => {
      const { body: answer } = await post('/VolumeDriver.Create', body);
      assert.match(String(answer['Err']), /^flock: /);
      assert.ok(String(answer['Err']).length < 600);
      assert.deepEqual(host.context.state.all(), []);
    });
  }

  it('answers an unknown call with an error', async () =>
    assert.match(await errorOf('Explode', {}), /does not know the call/));

  it('takes a mount back when Docker closed the connection before the answer', async () => {
    await call('Create', { Name: 'v1' });
    let open = () => {};
    ready = new Promise((resolve) => {
      open = resolve;
    });
    const body = JSON.stringify({ Name: 'v1', ID: 'late' });
    const socket = connect(join(folder, 's'));
    socket.write(`POST /VolumeDriver.Mount HTTP/1.1\r\nHost: \r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
    socket.destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));
    open();
    const id = host.context.state.byName(parseVolumeName('v1'))?.id;
    assert.ok(id);
    await until('the mount is taken back', 2000, async () =>
      (await host.storage.mountTable()).length === 0 && host.context.state.uses(id).length === 0 ? true : undefined,
    );
  });

  it('says why when the node can not start', async () => {
    ready = Promise.reject(new FlockError('not-ready', 'the pool is away'));
    ready.catch(() => undefined);
    assert.match(await errorOf('Mount', { Name: 'v1', ID: 'a' }), /flock: the pool is away/);
  });
});
