import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { Router } from 'express';
import { z } from 'zod';
import { makeAuthority, makeKey } from '../../controller/cluster/ca.ts';
import { identify } from '../../controller/cluster/founding.ts';
import { workloadLabel } from '../../controller/model/container-spec.ts';
import { type ErrorCode, FlockError } from '../../controller/model/errors.ts';
import type { NodeIdentity } from '../../controller/model/identity.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import type { WorkloadDoc } from '../../controller/model/workload.ts';
import { splitName, textOfLog } from '../../controller/program/docker.ts';
import { createImages, isPlainName } from '../../controller/program/images.ts';
import { createLocalContainers } from '../../controller/program/local.ts';
import { createMaker } from '../../controller/program/maker.ts';
import { askController, fetchImage } from '../../controller/program/peer-client.ts';
import { type PeerServer, startPeerServer } from '../../controller/program/peer-server.ts';
import { createFakeEngine, type FakeEngine } from '../support/fake-docker.ts';
import { imageId } from '../support/inspected.ts';
import { spec, workload } from '../support/move-documents.ts';
import { silent } from '../support/proxy-fakes.ts';
import { quietNet } from '../support/quiet-net.ts';
import { rejects } from '../support/refuses.ts';
import { until } from '../support/until.ts';

const [n1, n2] = ['n1', 'n2'].map(parseNodeName) as [
  ReturnType<typeof parseNodeName>,
  ReturnType<typeof parseNodeName>,
];
const authority = { clusterId: 'c1', ...makeAuthority('c1', Date.now()) };
const identityOf = (name: typeof n1, by = authority): NodeIdentity =>
  identify(
    'c1',
    by,
    makeKey(),
    { name, address: '127.0.0.1', port: 4270, labels: {}, storeAddress: 'http://127.0.0.1:8500', storeToken: null },
    Date.now(),
  );

async function fails(promise: Promise<unknown>, code: ErrorCode, text: RegExp): Promise<void> {
  assert.match((await rejects(promise, code)).message, text);
}

describe('images between nodes', () => {
  let server: PeerServer;
  let members: readonly string[];
  let source: FakeEngine;
  let save: FakeEngine['saveImage'];
  const signal = new AbortController().signal;
  const at = () => ({ address: '127.0.0.1', port: server.port });
  const times = { stallMs: 400, aliveMs: 50, saveMs: 10_000 };

  beforeEach(async () => {
    members = ['n1', 'n2'];
    source = createFakeEngine();
    source.images.set(imageId, { id: imageId, names: new Set(['web:1']) });
    save = source.saveImage;
    server = await startPeerServer({
      ...{ identity: identityOf(n1), address: '127.0.0.1', port: 0, log: silent },
      docker: { image: source.image, saveImage: (id, given) => save(id, given) },
      isMember: (node) => members.includes(node),
      times,
    });
  });
  afterEach(() => server.close());

  it('are given to members of the cluster, and to nobody else', async () => {
    const me = identityOf(n2);
    assert.equal(await text(await fetchImage(me, n1, at(), imageId, signal)), JSON.stringify({ id: imageId }));
    members = ['n1'];
    await fails(fetchImage(me, n1, at(), imageId, signal), 'node-unreachable', /n2 is no node of the cluster/);
    members = ['n1', 'n2'];
    const stranger = identityOf(n2, { clusterId: 'c1', ...makeAuthority('c1', Date.now()) });
    const trusting = { ...stranger, caCertificate: authority.certificate };
    await rejects(fetchImage(trusting, n1, at(), imageId, signal), 'node-unreachable');
    await rejects(fetchImage(stranger, n1, at(), imageId, signal), 'node-unreachable');
  });

  it('and answers to questions, too', async () => {
    await server.close();
    const asked: unknown[] = [];
    server = await startPeerServer({
      ...{ identity: identityOf(n1), address: '127.0.0.1', port: 0, log: silent, docker: source },
      isMember: (node) => members.includes(node),
      routers: [
        Router().post('/v1/questions', (request, response) => {
          asked.push(request.body);
          response.json({ answer: 42 });
        }),
      ],
    });
    const schema = z.object({ answer: z.number() });
    const question = { path: '/v1/questions', body: { what: 'é' }, schema };
    assert.deepEqual(await askController(identityOf(n2), n1, at(), question, signal), { answer: 42 });
    const other = { ...question, path: '/v1/others' };
    await fails(askController(identityOf(n2), n1, at(), other, signal), 'node-unreachable', /there is no POST/);
    members = ['n1'];
    await fails(
      askController(identityOf(n2), n1, at(), question, signal),
      'node-unreachable',
      /no node of the cluster/,
    );
    assert.deepEqual(asked, [{ what: 'é' }]);
  });

  it('are taken from exactly the node that was meant', async () => {
    await fails(fetchImage(identityOf(n2), n2, at(), imageId, signal), 'node-unreachable', /node n1 answers there/);
  });

  it('that are not there, or have no such name, are refused', async () => {
    const me = identityOf(n2);
    const other = `sha256:${'0'.repeat(64)}`;
    await fails(fetchImage(me, n1, at(), other, signal), 'node-unreachable', /not on this node/);
    await fails(fetchImage(me, n1, at(), 'web:1', signal), 'node-unreachable', /no image id/);
  });

  it('that break off are not taken for whole', async () => {
    save = async () =>
      Readable.from(
        (async function* () {
          yield Buffer.alloc(1_000);
          throw new Error('the disk is broken');
        })(),
      );
    const stream = await fetchImage(identityOf(n2), n1, at(), imageId, signal);
    await assert.rejects(text(stream));
  });

  it('come two at a time', async () => {
    const ends: (() => void)[] = [];
    save = async () => {
      const stream = new Readable({ read() {} });
      stream.push('first');
      ends.push(() => stream.push(null));
      return stream;
    };
    const me = identityOf(n2);
    const two = await Promise.all([1, 2].map(() => fetchImage(me, n1, at(), imageId, signal)));
    await fails(fetchImage(me, n1, at(), imageId, signal), 'too-many-requests', /sending 2 images already/);
    for (const end of ends) end();
    for (const stream of two) assert.equal(await text(stream), 'first');
  });

  it('may need longer for their first byte than a connection may be silent afterwards', async () => {
    const silence = new Readable({ read() {} });
    save = async () => {
      await sleep(3 * times.stallMs);
      silence.push('first');
      return silence;
    };
    const stream = await fetchImage(identityOf(n2), n1, at(), imageId, signal, times.stallMs);
    const sinceMs = performance.now();
    await assert.rejects(text(stream), 'and then it is silent for too long');
    assert.ok(performance.now() - sinceMs < 2 * times.stallMs);
    await until('Docker need not go on', 1_000, () => (silence.destroyed ? true : undefined));
  });

  it('that Docker still writes to its disk keep their places when nobody waits any more', async () => {
    const streams: Readable[] = [];
    const saving = Promise.withResolvers<void>();
    save = async () => {
      const stream = new Readable({ read() {} });
      streams.push(stream);
      await saving.promise;
      return stream;
    };
    const me = identityOf(n2);
    for (const count of [1, 2]) {
      const stop = new AbortController();
      const reason = new Error('enough');
      const left = assert.rejects(fetchImage(me, n1, at(), imageId, stop.signal), reason);
      await until('Docker is asked', 1_000, () => (streams.length === count ? true : undefined));
      stop.abort(reason);
      await left;
    }
    await sleep(2 * times.aliveMs);
    await fails(fetchImage(me, n1, at(), imageId, signal), 'too-many-requests', /sending 2 images already/);
    saving.resolve();
    await until('they are ended', 1_000, () => (streams.every(({ destroyed }) => destroyed) ? true : undefined));
    save = source.saveImage;
    assert.equal(await text(await fetchImage(me, n1, at(), imageId, signal)), JSON.stringify({ id: imageId }));
  });

  it('are not waited for without end', async () => {
    await server.close();
    server = await startPeerServer({
      ...{ identity: identityOf(n1), address: '127.0.0.1', port: 0, log: silent },
      docker: {
        image: source.image,
        saveImage: (_, given) =>
          new Promise((_resolve, reject) =>
            given.addEventListener('abort', () => reject(new Error('no answer in time'))),
          ),
      },
      isMember: () => true,
      times: { ...times, saveMs: 100 },
    });
    const fetching = fetchImage(identityOf(n2), n1, at(), imageId, signal);
    await fails(fetching, 'node-unreachable', /no answer in time|status 500/);
  });
});

describe('an image of a workload', () => {
  const signal = new AbortController().signal;
  const web = workload('web', 'n1', {
    spec: spec({ image: 'web:1', imageId, create: { HostConfig: { Mounts: [] } } }),
  });

  function world(fetches: Readonly<Record<string, () => Readable>>, patienceMs?: number) {
    const docker = createFakeEngine();
    const asked: string[] = [];
    const images = createImages({
      node: n2,
      docker,
      async fetch(node) {
        asked.push(node);
        const make = fetches[node];
        if (make === undefined) throw new Error(`${node} is away`);
        return make();
      },
      log: silent,
      ...(patienceMs === undefined ? {} : { patienceMs }),
    });
    return { docker, asked, images };
  }
  const good = (id: string) => () => Readable.from([Buffer.from(JSON.stringify({ id }))]);

  it('is brought from the first node that has it, once, and gets its name', async () => {
    const { docker, asked, images } = world({ n3: good(imageId) });
    const from = ['n1', 'n2', 'n3'].map(parseNodeName);
    await Promise.all([images.ensure(web, from, signal), images.ensure(web, from, signal)]);
    assert.deepEqual(asked, ['n1', 'n3']);
    assert.deepEqual([...(docker.images.get(imageId)?.names ?? [])], ['web:1']);
  });

  it('leaves a name to the image that has it', async () => {
    const { docker, images } = world({ n1: good(imageId) });
    docker.images.set('sha256:other', { id: 'sha256:other', names: new Set(['web:1']) });
    await images.ensure(web, [n1], signal);
    assert.deepEqual([...(docker.images.get(imageId)?.names ?? [])], []);
    const made = await createMaker(docker, quietNet).make(web);
    assert.equal(((await docker.inspect(made)) as { Config: { Image: string } }).Config.Image, imageId);
  });

  it('that is nowhere, or is another one when it comes, is an error with all that was tried', async () => {
    const { images } = world({ n3: good('sha256:other') });
    const ensuring = images.ensure(web, ['n1', 'n3'].map(parseNodeName), signal);
    await fails(ensuring, 'docker-failed', /"web:1".*n1 is away.*what node n3 sent/);
  });

  it('is given up with the signal, and the next one is brought all the same', async () => {
    const stop = new AbortController();
    const { docker, images } = world({ n1: () => new Readable({ read() {} }), n3: good(imageId) });
    const stuck = images.ensure(web, [n1], stop.signal);
    const next = images.ensure(web, [parseNodeName('n3')], signal);
    const reason = new Error('enough');
    setImmediate(() => stop.abort(reason));
    await assert.rejects(stuck, reason);
    await next;
    assert.ok(docker.images.has(imageId));
  });

  it('that is here waits for none that is on its way', async () => {
    const stop = new AbortController();
    const { docker, asked, images } = world({ n1: () => new Readable({ read() {} }) });
    const other = { ...web, spec: { ...web.spec, image: 'api:1', imageId: `sha256:${'7'.repeat(64)}` } };
    const stuck = images.ensure(other, [n1], stop.signal);
    docker.images.set(imageId, { id: imageId, names: new Set() });
    await images.ensure(web, [n1], AbortSignal.timeout(1_000));
    assert.deepEqual([...(docker.images.get(imageId)?.names ?? [])], ['web:1']);
    await until('the other one is asked for', 1_000, () => (asked.length > 0 ? true : undefined));
    assert.deepEqual(asked, ['n1'], 'and this one is not');
    stop.abort(new Error('enough'));
    await assert.rejects(stuck, /enough/);
  });

  it('waits for another one that hangs for some time only, and for the same one until that has ended', async () => {
    const stop = new AbortController();
    const { docker, asked, images } = world({ n1: () => new Readable({ read() {} }), n3: good(imageId) }, 50);
    const other = { ...web, spec: { ...web.spec, image: 'api:1', imageId: `sha256:${'7'.repeat(64)}` } };
    const stuck = images.ensure(other, [n1], stop.signal);
    const sameStuck = images.ensure(other, [parseNodeName('n2')], signal);
    await images.ensure(web, [parseNodeName('n3')], AbortSignal.timeout(2_000));
    assert.ok(docker.images.has(imageId));
    assert.deepEqual(asked, ['n1', 'n3']);
    stop.abort(new Error('enough'));
    await assert.rejects(stuck, /enough/);
    await fails(sameStuck, 'docker-failed', /no other node/);
  });

  it('that nodes have no place for at the moment is no failure of theirs', async () => {
    const busy = () => {
      throw new FlockError('too-many-requests', 'this node is sending 2 images already');
    };
    const from = ['n1', 'n3'].map(parseNodeName);
    await fails(world({ n1: busy, n3: busy }).images.ensure(web, from, signal), 'too-many-requests', /sending 2/);
    await fails(world({ n1: busy }).images.ensure(web, from, signal), 'docker-failed', /n3 is away/);
  });

  it('has a name that can be given, if it is neither an id nor a digest', () => {
    for (const name of ['web', 'web:1', 'registry:5000/a/web:1', 'deadbeef']) assert.ok(isPlainName(name), name);
    for (const name of [imageId, imageId.slice(7), 'web@sha256:00', '1a1a1a1a1a1a'])
      assert.ok(!isPlainName(name), name);
    assert.deepEqual(splitName('registry:5000/a/web'), { repo: 'registry:5000/a/web', tag: 'latest' });
    assert.deepEqual(splitName('registry:5000/a/web:1'), { repo: 'registry:5000/a/web', tag: '1' });
  });
});

describe('a container that is made', () => {
  const change = { image: 'web:1', imageId, create: { HostConfig: { Mounts: [] }, Labels: { a: 'b' } } };
  const web = workload('web', 'n1', { spec: spec(change) });
  let docker: FakeEngine;

  beforeEach(() => {
    docker = createFakeEngine();
    docker.images.set(imageId, { id: imageId, names: new Set(['web:1']) });
  });

  /** As the document of its workload has it, with all that Docker says of a container. */
  async function described(): Promise<WorkloadDoc> {
    const id = await createMaker(docker, quietNet).make(web);
    const found = await createLocalContainers(docker).describeOne(id);
    docker.personRemoves('web');
    return { ...web, spec: found?.spec ?? web.spec };
  }

  it('is found again by whoever was cut off while making it', async () => {
    const maker = createMaker(docker, quietNet);
    const doc = await described();
    const id = await maker.make(doc);
    assert.equal(await maker.make(doc), id);
    assert.deepEqual(docker.states(), { web: 'created' });
  });

  it('is made anew where the one that was left is of another image, or has other options', async () => {
    const maker = createMaker(docker, quietNet);
    const doc = await described();
    const first = await maker.make(doc);
    const { spec: old } = doc;
    const options = { ...doc, spec: { ...old, create: { ...old.create, Env: ['A=2'] } } };
    const second = await maker.make(options);
    assert.notEqual(second, first);
    const next = `sha256:${'2b'.repeat(32)}`;
    docker.images.set(next, { id: next, names: new Set(['web:2']) });
    const image = { ...options, spec: { ...options.spec, image: 'web:2', imageId: next } };
    assert.equal(await maker.isNameTaken(image), false);
    assert.notEqual(await maker.make(image), second);
    assert.deepEqual(docker.states(), { web: 'created' });
  });

  it('keeps what has run under another name, if it is of its image', async () => {
    const maker = createMaker(docker, quietNet);
    const doc = await described();
    const old = await maker.make(doc);
    docker.personStarts('web');
    assert.equal(await maker.isNameTaken(doc), false);
    assert.notEqual(await maker.make(doc), old);
    assert.deepEqual(docker.states(), { 'web.left-1': 'exited', web: 'created' });
  });

  it('does not take what people have made with its labels, of another image', async () => {
    const maker = createMaker(docker, quietNet);
    const doc = await described();
    // "docker commit" of one that flock has made, and "docker run".
    const copy = { mounts: [], image: 'sha256:committed', config: { Labels: { [workloadLabel]: doc.id } } };
    const theirs = docker.run('web', copy);
    assert.equal(await maker.isNameTaken(doc), true);
    await fails(maker.make(doc), 'docker-failed', /another container of this host has the name/);
    docker.personStops('web');
    await fails(maker.make(doc), 'docker-failed', /another container of this host has the name/);
    assert.deepEqual([docker.states(), docker.idOf('web')], [{ web: 'exited' }, theirs]);
  });

  it('does not take another’s name, and says whose it is', async () => {
    docker.run('web', { mounts: [] });
    await fails(
      createMaker(docker, quietNet).make(web),
      'docker-failed',
      /container web .*another container of this host has the name/,
    );
  });

  it('whose volume has the name of another driver’s one is told so by Docker itself', async () => {
    const words =
      "making container web: Docker says: driver 'local' already has volume 'db': volume name must be unique";
    docker.create = async () => {
      throw new FlockError('docker-failed', words, { status: 409 });
    };
    await fails(createMaker(docker, quietNet).make(web), 'docker-failed', /driver 'local' already has volume/);
  });

  it('takes the name of one that is to be put away', async () => {
    const old = docker.run('web', { mounts: [] });
    const moved = { ...web, former: [{ node: n2, containerId: old, why: 'moved' as const }] };
    const id = await createMaker(docker, quietNet).make(moved);
    assert.notEqual(id, old);
    assert.deepEqual(docker.states(), { web: 'created' });
  });

  it('needs its image', async () => {
    docker.images.clear();
    await fails(createMaker(docker, quietNet).make(web), 'docker-failed', /its image "web:1" .* is not on this host/);
  });

  it('gets its networks, with other addresses where nobody asked for certain ones and theirs are taken', async () => {
    const asked: unknown[] = [];
    const overlap = new FlockError('docker-failed', 'Pool overlaps with other one on this address space', {
      status: 403,
    });
    const taken: FakeEngine['createNetwork'] = async (body) => {
      asked.push((body['IPAM'] as { Config: unknown[] }).Config.length);
      if (asked.length === 1) throw overlap;
      await docker.createNetwork(body);
    };
    const networksNeeded = {
      shop: { Name: 'shop', IPAM: { Driver: 'default', Config: [{ Subnet: '172.20.0.0/16' }] } },
    };
    await createMaker({ ...docker, createNetwork: taken }, quietNet).make({
      ...web,
      spec: { ...web.spec, networksNeeded },
    });
    assert.deepEqual(asked, [1, 0]);
    const fixed = { NetworkingConfig: { EndpointsConfig: { back: { IPAMConfig: { IPv4Address: '172.20.0.9' } } } } };
    const needed = { back: { Name: 'back', IPAM: { Driver: 'default', Config: [{ Subnet: '172.20.0.0/16' }] } } };
    const strict = {
      ...web,
      name: 'api',
      spec: { ...web.spec, create: { ...web.spec.create, ...fixed }, networksNeeded: needed },
    };
    const refusing = createMaker({ ...docker, createNetwork: () => Promise.reject(overlap) }, quietNet);
    await fails(refusing.make(strict), 'docker-failed', /Pool overlaps/);
    // Docker itself would make it over what the host is in.
    const near = { ...quietNet, subnets: async () => ['10.0.0.0/24', '172.20.0.0/14'] };
    const away = { lan: { Name: 'lan', IPAM: { Driver: 'default', Config: [{ Subnet: '172.20.8.0/24' }] } } };
    const made: number[] = [];
    const counting: FakeEngine['createNetwork'] = async (body) => {
      made.push((body['IPAM'] as { Config: unknown[] }).Config.length);
      await docker.createNetwork(body);
    };
    const free = { ...web, name: 'free', spec: { ...web.spec, networksNeeded: away } };
    await createMaker({ ...docker, createNetwork: counting }, near).make(free);
    assert.deepEqual(made, [0]);
    // Where Docker has no other addresses left, and where a container has one of them.
    const asking: FakeEngine['createNetwork'] = async (body) => {
      const { length } = (body['IPAM'] as { Config: unknown[] }).Config;
      made.push(length);
      if (length === 0) throw new FlockError('docker-failed', 'no available network', { status: 404 });
    };
    made.length = 0;
    const renamed = {
      ...free,
      name: 'again',
      spec: { ...free.spec, networksNeeded: { wan: { ...away.lan, Name: 'wan' } } },
    };
    await createMaker({ ...docker, createNetwork: asking }, near).make(renamed);
    assert.deepEqual(made, [0, 1]);
    made.length = 0;
    await createMaker({ ...docker, createNetwork: counting }, near).make(strict);
    assert.deepEqual(made, [1]);
  });
});

describe('the end of a container’s log', () => {
  it('is read with and without a terminal', () => {
    const piece = (stream: number, words: string) =>
      Buffer.concat([Buffer.from([stream, 0, 0, 0, 0, 0, 0, words.length]), Buffer.from(words)]);
    assert.equal(textOfLog(Buffer.concat([piece(1, 'one\n'), piece(2, 'two\n')])), 'one\ntwo\n');
    assert.equal(textOfLog(Buffer.from('plain text\n')), 'plain text\n');
    assert.equal(textOfLog(Buffer.from('')), '');
  });
});
